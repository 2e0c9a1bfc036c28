#!/usr/bin/env bash
# Jelastic runs this when the number of cloudlets has changed: as many workers as there is room for
# now, without a restart.
exec "$(dirname "$(readlink -f "$0")")/../../bin/control" resize
