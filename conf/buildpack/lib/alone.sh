# Sourced before the application starts, where this buildpack has made the virtualenv.
export VIRTUAL_ENV="$DEPS_DIR/@INDEX@/venv"
export PATH="$DEPS_DIR/@INDEX@/bin:$VIRTUAL_ENV/bin:$PATH"
export LANG="${LANG:-C.UTF-8}" PYTHONUNBUFFERED=1
# The router is the only one who can reach the application. An instance that stops has ten seconds.
export FORWARDED_ALLOW_IPS="${FORWARDED_ALLOW_IPS-*}"
export GUNICORN_CMD_ARGS="${GUNICORN_CMD_ARGS---access-logfile - --graceful-timeout 8}"
# DATABASE_URL and others, on a descriptor that nobody logs.
eval "$(monoceros-env --sh 3 3>&1 >&2)"
