# shellcheck shell=bash
# Jelastic's agent reads this and calls _deploy URL CONTEXT, then `control build` and `control
# deploy`.
#
# The agent shows what these functions return as its result: 156 is "cannot be downloaded" (4078),
# 56 "cannot be unpacked" (4071), others below 4000 "deploy failed" (4060).

# What the package may take to come (Jelastic's own limit for a deploy is 900 s).
readonly DOWNLOAD_SECONDS=600

_deploy() {
  local url=$1 context=$2 work package unpacked entries
  [ "$context" = ROOT ] || return 60
  work=$(mktemp -d "$CARTRIDGE_HOME/.deploy.XXXXXX") || return 60
  package=$work/package
  unpacked=$work/unpacked
  mkdir "$unpacked"
  if ! _download "$url" "$package" || [ ! -s "$package" ]; then
    rm -rf "$work"
    return 156
  fi
  if ! _unpack "$package" "$unpacked" || [ -z "$(ls -A "$unpacked")" ]; then
    rm -rf "$work"
    return 56
  fi
  # A package often holds one folder with everything in it.
  mapfile -t entries < <(find "$unpacked" -mindepth 1 -maxdepth 1)
  if [ "${#entries[@]}" = 1 ] && [ -d "${entries[0]}" ]; then unpacked=${entries[0]}; fi
  # The release that is served is a copy, so nobody sees the folders change places.
  rm -rf "$CARTRIDGE_HOME/ROOT.old"
  if [ -e "$CARTRIDGE_HOME/ROOT" ]; then mv "$CARTRIDGE_HOME/ROOT" "$CARTRIDGE_HOME/ROOT.old"; fi
  mv "$unpacked" "$CARTRIDGE_HOME/ROOT"
  chmod 755 "$CARTRIDGE_HOME/ROOT"
  rm -rf "$work" "$CARTRIDGE_HOME/ROOT.old"
  if [ -n "${DATA_OWNER:-}" ]; then chown -R "$DATA_OWNER" "$CARTRIDGE_HOME/ROOT"; fi
}

_download() {
  curl --fail --silent --show-error --location --max-time "$DOWNLOAD_SECONDS" --output "$2" "$1"
}

# By what the file is, not by its name: the URL may have none.
_unpack() {
  if unzip -tqq "$1" >/dev/null 2>&1; then
    unzip -oqq "$1" -d "$2"
  else
    tar --extract --no-same-owner --file "$1" --directory "$2" 2>/dev/null
  fi
}

_undeploy() {
  rm -rf "${CARTRIDGE_HOME:?}/ROOT"
  mkdir "$CARTRIDGE_HOME/ROOT"
}
