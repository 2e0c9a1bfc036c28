# How both buildpacks find an interpreter, and the server that is for it. Each sets buildpack, its own folder, before.

fail() {
  echo "monoceros: $1" >&2
  exit 1
}

# A Python of 3.10 or later: that of a buildpack before this one, else the system's. $MONOCEROS_PYTHON names another.
find_python() {
  for python in ${MONOCEROS_PYTHON:-python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10}; do
    tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 10))' 2>/dev/null) &&
      return
  done
  return 1
}

find_wheel() {
  for wheel in "$buildpack"/wheels/monoceros-*-"$tag"-*.whl; do
    [ ! -f "$wheel" ] || return 0
  done
  fail "this buildpack has no server for $("$python" -V); it has: $(cd "$buildpack/wheels" && echo *.whl)"
}
