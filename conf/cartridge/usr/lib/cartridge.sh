# shellcheck shell=bash
# What the scripts of bin/ share: where things are, what a release is, and how the server is spoken
# to.
#
# A release is a folder of its own, releases/TIME, with a copy of the application (repo) and its
# virtualenv (virtenv). The link releases/current names the one that is served. The platform empties
# and fills the repository while a hot deploy goes on; the server does not notice, and HUP lets it
# enter the new release by the name of the link.
#
# Not -u: to the bash of those platforms, before 4.4, an array without elements is not set.
set -eo pipefail

# Jelastic keeps the variables of the node in this file; OpenShift sets them.
: "${JELASTIC_ENVIRONMENT:=/etc/jelastic/environment}"
if [ -r "$JELASTIC_ENVIRONMENT" ]; then
  # shellcheck disable=SC1090
  . "$JELASTIC_ENVIRONMENT"
fi

home=${OPENSHIFT_PYTHON_DIR:?is set by the platform}
home=${home%/}
repository=${OPENSHIFT_REPO_DIR:-$home}
repository=${repository%/}
# Jelastic unpacks the application into ROOT, below the cartridge itself.
if [ "$repository" -ef "$home" ]; then source=$home/ROOT; else source=$repository; fi

run=${OPENSHIFT_PYTHON_PID_DIR:-$home/run}
logs=${OPENSHIFT_PYTHON_LOG_DIR:-$home/logs}
logs=${logs%/}
releases=$home/releases
current=$releases/current
# The cache of virtualenvs is in the folder that the platform copies from one deployment to the
# next.
dependencies=$home/virtenv
if [ -n "$OPENSHIFT_DEPENDENCIES_DIR" ]; then
  dependencies=${OPENSHIFT_DEPENDENCIES_DIR%/}/${home##*/}/virtenv
fi
pidfile=$run/monoceros.pid
# The interpreter of the cartridge's version, as bin/setup has found it.
version=$(<"$home/env/OPENSHIFT_PYTHON_VERSION")
python=$home/versions/$version/bin/python3
log=$logs/python.log

# Where the server says by itself that it serves. The application's paths are its own, /health among
# them.
readonly HEALTH_PATH=/-/health
# The platform kills about ten seconds after the first TERM.
readonly STOP_SECONDS=10
# How long new workers may take to load the application.
: "${OPENSHIFT_PYTHON_START_SECONDS:=60}"
# How long a release that is no longer served stays: its last workers may still be at a request.
readonly RELEASE_MINUTES=1

if [ -r "$OPENSHIFT_CARTRIDGE_SDK_BASH" ]; then
  # shellcheck disable=SC1090
  . "$OPENSHIFT_CARTRIDGE_SDK_BASH"
else
  client_result() { echo "$1"; }
  client_message() { echo "$1"; }
  client_error() { echo "$1"; }
fi

# refuse SENTENCE: says to the user why the verb fails.
refuse() {
  client_error "$1"
  exit 1
}

# -- The build -------------------------------------------------------------------------------------

# with_services COMMAND...: runs it with DATABASE_URL and the other variables that come of bound
# services and of the gear's size. What it runs can import monoceros_env.
with_services() {
  PYTHONPATH=$home/usr/lib${PYTHONPATH:+:$PYTHONPATH} "$python" -m monoceros_env "$@"
}

stage() {
  with_services "$python" "$home/usr/bin/stage" "$@"
}

# own_wheel: prints the path of the server's wheel for this Python, or fails.
own_wheel() {
  compgen -G "$home/usr/wheels/*-cp${version/./}-*.whl"
}

# build: the virtualenv of the application's requirements, from the cache where it is there, and the
# static files. A deploy wants the mark of a build that has succeeded: Jelastic calls it also after
# one that has failed.
build() {
  local options=(--venv "$dependencies/built" --cache "$dependencies/cache" --link) wheel
  rm -f "$dependencies/build-succeeded"
  mkdir -p "$dependencies"
  if [ -e "$source/.openshift/markers/force_clean_build" ]; then options+=(--clean); fi
  if wheel=$(own_wheel); then options+=(--with "$wheel"); fi
  stage build "$source" "${options[@]}" || refuse "The build failed. The release that was served stays."
  basename "$(readlink "$dependencies/built")" >"$dependencies/build-succeeded"
}

# -- Releases --------------------------------------------------------------------------------------

# release: makes a release of what was built, and lets `current` name it. What cannot be loaded or
# migrated is refused.
release() {
  local new built
  built=$(cat "$dependencies/build-succeeded" 2>/dev/null) ||
    refuse "There is no build that succeeded. Nothing was deployed."
  new=$releases/$(date -u +%Y-%m-%d_%H-%M-%S.%N)
  mkdir -p "$new/repo"
  cp -a "$source/." "$new/repo"
  # Python caches a folder's listing by its time, which the copy has from the original.
  touch "$new/repo"
  # Hard links: the platform may replace the virtualenv in the cache, and the running one stays.
  cp -al "$dependencies/cache/$built" "$new/virtenv" 2>/dev/null || cp -a "$dependencies/cache/$built" "$new/virtenv"
  echo "$built $(program_identity)" >"$new/runtime"
  find_application "$new" || abandon "$new" "The WSGI application was not found."
  check "$new" || abandon "$new" "The application cannot be loaded."
  stage release "$new/repo" --venv "$new/virtenv" || abandon "$new" "The release was refused."
  point_at "$new"
  prune
}

# abandon RELEASE SENTENCE: what is served stays as it is.
abandon() {
  rm -rf "$1"
  refuse "$2 What was served before stays."
}

# find_application RELEASE: notes what there is to serve, which may be nothing. Jelastic's script
# without a suffix is one that is named; a path into the repository means the same place in the
# release.
find_application() {
  local named=$OPENSHIFT_PYTHON_WSGI_APPLICATION
  if [ -z "$named" ] && [ -f "$source/application" ] && [ ! -f "$source/wsgi.py" ]; then named=application; fi
  named=${named#"$source/"}
  if [ -n "$named" ]; then export OPENSHIFT_PYTHON_WSGI_APPLICATION=$named; fi
  stage find "$1/repo" >"$1/source" && grep -q '^\(APP_MODULE\|WSGI_FILE\)=.' "$1/source"
}

# check RELEASE: loads settings and application as the server will.
check() {
  save_environment
  (MONOCEROS_RELEASE=$1 run_server env "$1" --check-config --error-logfile -)
}

# point_at RELEASE: in one step, so that there is a release at any moment.
point_at() {
  if [ -e "$current" ]; then touch "$current/"; fi
  ln -sfn "${1##*/}" "$releases/.current"
  mv -T "$releases/.current" "$current"
}

prune() {
  local served
  served=$(readlink "$current")
  find "$releases" -mindepth 1 -maxdepth 1 -type d ! -name "$served" -mmin "+$RELEASE_MINUTES" -exec rm -rf {} +
}

# is_changed: whether the application was changed by hand since its release, with a file manager,
# say.
is_changed() {
  local made=$current/source
  [ ! -e "$made" ] || [ -n "$(find "$source" -name __pycache__ -prune -o -cnewer "$made" -print -quit)" ]
}

# -- The server ------------------------------------------------------------------------------------

# run_server COMMAND RELEASE ARGUMENT...: becomes the program in usr/bin with the release's virtualenv,
# or the wheel installed there. COMMAND executes it: setsid, or env, which changes nothing.
run_server() {
  local server=("$home/usr/bin/monoceros")
  # Not the wheel's script: it would find its Python where the link `current` leads at the moment.
  if [ ! -x "${server[0]}" ]; then server=("$2/virtenv/bin/python" -m monoceros); fi
  export VIRTUAL_ENV=$2/virtenv OPENSHIFT_PYTHON_IP OPENSHIFT_PYTHON_PORT
  # The platform's proxy comes to the address that the two name, and to no other.
  unset PORT
  cd "$home"
  exec "$1" "${server[@]}" --config "$home/conf/gunicorn.conf.py" "${@:3}"
}

# program_identity: changes with the program, for which a HUP is not enough.
program_identity() {
  stat -L -c %Y-%s "$home/usr/bin/monoceros" 2>/dev/null || echo wheel
}

# is_alive PID: neither gone nor a zombie (proc(5), the field behind the name in parentheses). Not by
# its command line, which is empty for a moment while a process executes a program.
is_alive() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null && [[ ${stat##*) } != [ZX]* ]]
}

# workers_of PID: prints the pids of a master's workers, by the title that they have. Its other
# children, a dirty arbiter or what a hook has started, outlive a reload, and may die of a signal
# that is meant for workers.
workers_of() {
  local process stat title
  for process in /proc/[0-9]*; do
    title=
    # Some kernels do not end the title with a NUL, and read says so by its status.
    { read -r stat <"$process/stat" && read -r -d '' title <"$process/cmdline"; } 2>/dev/null || :
    if [[ ${stat##*) } == ?" $1 "* && $title == "monoceros: worker ["* ]]; then echo "${process##*/}"; fi
  done
}

# server_pid: prints the pid of the master, or fails.
server_pid() {
  local pid
  pid=$(cat "$pidfile" 2>/dev/null) && [ -n "$pid" ] || return 1
  grep -aq monoceros "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

# save_environment: what gunicorn.conf.py gives to the application at each reload. The master itself
# keeps the variables that it was started with.
save_environment() {
  local memory=$OPENSHIFT_GEAR_MEMORY_MB
  # Jelastic has noted what the node had when it was made.
  if [ "$source" = "$home/ROOT" ]; then memory=$(free -m | awk '/^Mem/ { print $2 }'); fi
  mkdir -p "$run" "$logs"
  (
    umask 077
    export OPENSHIFT_GEAR_MEMORY_MB=$memory
    export MONOCEROS_WORKERS=${OPENSHIFT_PYTHON_WORKERS:-${WEB_CONCURRENCY:-auto}}
    with_services env -0 >"$run/environment.new"
  )
  mv "$run/environment.new" "$run/environment"
}

# start_server: returns when it serves.
start_server() {
  local pid
  save_environment
  expect_workers
  # What it names is not the server, and the server would take it for one.
  rm -f "$pidfile"
  # shellcheck disable=SC2094
  (run_server setsid "$current" --pid "$pidfile" --error-logfile "$log" --health-path "$HEALTH_PATH") </dev/null >>"$log" 2>&1 &
  pid=$!
  wait_for_workers "$pid" || {
    kill -QUIT "$pid" 2>/dev/null || :
    refuse "The application did not start: $(last_words)"
  }
}

# reload_server PID: returns when new workers serve and the old ones have gone. The program, and
# what it holds of the virtualenv, are replaced in place where they have changed; a HUP does for
# everything else.
reload_server() {
  local signal=HUP
  save_environment
  expect_workers "$1"
  if ! cmp -s "$run/runtime" "$current/runtime"; then signal=RTMIN; fi
  kill -s "$signal" "$1"
  wait_for_workers "$1" && cp "$current/runtime" "$run/runtime"
}

reload_or_refuse() {
  reload_server "$1" || refuse "The reload failed, the old workers serve on: $(last_words)"
}

# expect_workers [PID]: notes what wait_for_workers compares with. A worker that has loaded the
# application with the settings from now on makes the file that `token` names.
expect_workers() {
  token=serving.$(date +%s%N)
  log_start=$(($(stat -c %s "$log" 2>/dev/null || echo 0) + 1))
  old_workers=()
  if [ $# -gt 0 ]; then mapfile -t old_workers < <(workers_of "$1"); fi
  rm -f "$run"/serving.*
  echo "$token" >"$run/wanted"
}

wait_for_workers() {
  local end=$((SECONDS + OPENSHIFT_PYTHON_START_SECONDS))
  while [ "$SECONDS" -lt "$end" ] && is_alive "$1"; do
    if grep -q 'Reload failed\|Upgrade failed' < <(new_lines); then return 1; fi
    if [ -e "$run/$token" ] && ! any_is_alive "${old_workers[@]}"; then return 0; fi
    sleep 0.1
  done
  return 1
}

any_is_alive() {
  local pid
  for pid in "$@"; do
    if is_alive "$pid"; then return 0; fi
  done
  return 1
}

# new_lines: what was logged since expect_workers.
new_lines() {
  tail -c "+$log_start" "$log"
}

# last_words: the reason, which the server has logged, if it has come to that.
last_words() {
  new_lines | grep -v '\[INFO\]' | tail -n 5 ||
    echo "no worker has loaded it in $OPENSHIFT_PYTHON_START_SECONDS seconds."
}

# stop_server PID: one TERM, time for what is in flight, and KILL for what is left.
stop_server() {
  kill -TERM "$1"
  if has_ended "$1" "$STOP_SECONDS"; then return 0; fi
  client_message "The server was killed: it had not ended within $STOP_SECONDS seconds."
  kill -KILL "$1" 2>/dev/null || :
  has_ended "$1" 2
}

# has_ended PID SECONDS: waits for it.
has_ended() {
  local end=$((SECONDS + $2))
  while is_alive "$1"; do
    if [ "$SECONDS" -ge "$end" ]; then return 1; fi
    sleep 0.1
  done
}
