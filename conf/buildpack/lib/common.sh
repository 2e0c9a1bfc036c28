# What the steps of the buildpack share. Each sets build, cache and own (its folder in DEPS) before it calls these.

. "$buildpack/lib/python.sh"

# Files that say that a folder is a Python application, also where the command is the user's own (a Procfile).
is_named_by_the_user() {
  [ -f "$1/requirements.txt" ] || [ -f "$1/Pipfile.lock" ] || [ -f "$1/pyproject.toml" ] || [ -f "$1/setup.py" ]
}

# Programs, libraries and variables of the buildpacks before this one, as each later buildpack has to take them up.
take_what_others_supplied() {
  for folder in "$1"/*/; do
    [ "$folder" != "$1/$2/" ] || continue
    [ ! -d "${folder}bin" ] || PATH=${folder}bin:$PATH
    [ ! -d "${folder}lib" ] || LD_LIBRARY_PATH=${folder}lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    for file in "${folder}env"/*; do
      [ ! -f "$file" ] || export "$(basename "$file")=$(cat "$file")"
    done
  done
  export PATH
  [ -z "${LD_LIBRARY_PATH:-}" ] || export LD_LIBRARY_PATH
}

is_after_a_python_buildpack() {
  [ -n "$(find "$1" -mindepth 3 -maxdepth 4 -path '*/python/bin/python3' | head -n 1)" ]
}

supply_a_virtualenv() {
  profile=alone.sh
  stage_build --no-static --no-check
  cat > "$own/bin/stage" <<'SH'
#!/bin/sh
here=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "$here/venv/bin/python" "$here/stage" "$@"
SH
  chmod +x "$own/bin/stage"
  for program in monoceros monoceros-env gunicorn; do
    ln -sf "../venv/bin/$program" "$own/bin/$program"
  done
}

stage_build() {
  "$python" "$buildpack/stage" build "$build" --venv "$own/venv" --cache "$cache/stage" --python "$(command -v "$python")" \
    --with "$wheel" --as-gunicorn "$@"
}

# The application's packages are in the other buildpack's Python. The server goes beside them, and needs none of them.
supply_beside_their_python() {
  profile=after.sh
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --upgrade --target "$own/site" "$wheel"
  for program in monoceros:'-m monoceros' monoceros-env:'-m monoceros_env' gunicorn:'-m gunicorn' stage:'"$here/stage"'; do
    cat > "$own/bin/${program%%:*}" <<SH
#!/bin/sh
here=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
exec python3 ${program#*:} "\$@"
SH
    chmod +x "$own/bin/${program%%:*}"
  done
}

# The process web: a Django project's release, which one of the instances does, and then the server in its place, which
# finds the application itself.
write_start_command() {
  eval "$("$python" "$buildpack/stage" find "$build")"
  echo '#!/bin/sh'
  case $FRAMEWORK in
    django) echo "exec stage release . -- monoceros --autodetect" ;;
    *) echo "exec monoceros --autodetect" ;;
  esac
}
