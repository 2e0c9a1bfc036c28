#!/bin/sh
# The arguments and variables of gunicorn's official image, for this server.
#
#   an argument that begins with a dash or holds a colon   arguments of the server
#   anything else                                          a command of its own
#
# GUNICORN_BIND, else GUNICORN_HOST and GUNICORN_PORT (0.0.0.0, 8000); GUNICORN_WORKERS, else two for each processor and
# one more; GUNICORN_ARGS, split at blanks.
set -e

case ${1:-} in
  -* | *:*) ;;
  '') echo "entrypoint.sh: name the application, MODULE:NAME" >&2; exit 1 ;;
  *) exec "$@" ;;
esac

bind=${GUNICORN_BIND:-${GUNICORN_HOST:-0.0.0.0}:${GUNICORN_PORT:-8000}}
# `auto` is that number, by the processors that the container may use.
workers=${GUNICORN_WORKERS:-auto}
# GUNICORN_ARGS is meant to be split.
# shellcheck disable=SC2086
exec "${MONOCEROS:-monoceros}" --bind "$bind" --workers "$workers" ${GUNICORN_ARGS:-} "$@"
