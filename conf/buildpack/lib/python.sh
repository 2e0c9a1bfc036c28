# How both buildpacks find an interpreter, and the server that is for it. Each sets buildpack, its own folder, before.

fail() {
  echo "monoceros: $1" >&2
  exit 1
}

# A Python of 3.10 or later: that of a buildpack before this one, else the system's. $MONOCEROS_PYTHON names another.
find_python() {
  for python in ${MONOCEROS_PYTHON:-python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10}; do
    about=$("$python" -c '
import platform, sys, sysconfig
libc = "musl" if "musl" in (sysconfig.get_config_var("SOABI") or "") else "glibc"
print("cp%d%d" % sys.version_info[:2], platform.machine(), libc)
sys.exit(sys.version_info < (3, 10))' 2>/dev/null) && return
  done
  return 1
}

# The wheel for that Python: its version, the processor, and the C library.
find_wheel() {
  # shellcheck disable=SC2086 # three words
  set -- $about
  for wheel in "$buildpack"/wheels/monoceros-*-"$1"-*_"$2".whl; do
    case $wheel in
      *-musllinux_*) found=musl ;;
      *) found=glibc ;;
    esac
    if [ -f "$wheel" ] && [ "$found" = "$3" ]; then return 0; fi
  done
  fail "this buildpack has no server for $("$python" -V); it has: $(cd "$buildpack/wheels" && echo *.whl)"
}
