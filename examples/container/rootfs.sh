#!/bin/sh
# Collects a root file system with Debian's Python, and the folders that are named, into an empty folder.
#
#   rootfs.sh ROOTFS FOLDER...
#
# In it: the interpreter, its standard library, every shared library that these and the folders' extension modules need,
# time zones, certificates, /tmp and /etc/passwd. Not in it: a shell, a package manager, a libc of its own for DNS plugins
# beyond files and dns.
set -eu

rootfs=$1
shift
python=$(readlink -f "$(command -v python3)")
library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')

mkdir -p "$rootfs"
for path in "$python" "$library" "$@" /usr/share/zoneinfo /etc/ssl/certs; do
  [ ! -e "$path" ] || tar -C / -cf - ".$path" | tar -C "$rootfs" -xpf -
done
ln -sf "$(basename "$python")" "$rootfs/usr/bin/python3"
# Debian's /lib and /lib64 are links into /usr.
for link in lib lib64 bin; do
  [ ! -L "/$link" ] || cp -a "/$link" "$rootfs/"
done

# What the loader finds for each program and module: the libraries, and the loader itself.
find "$python" "$library" "$@" -type f \( -name '*.so*' -o -path "$python" \) | while read -r file; do
  ldd "$file" 2>/dev/null | grep -o '/[^ ]*' || true
done | sort -u | while read -r file; do
  real=$(readlink -f "$file")
  folder=$rootfs$(readlink -f "$(dirname "$file")")
  mkdir -p "$folder"
  cp -a "$real" "$folder/$(basename "$file")"
done

mkdir -p "$rootfs/etc" "$rootfs/tmp"
chmod 1777 "$rootfs/tmp"
printf 'root:x:0:0::/:/nologin\napp:x:10001:10001::/tmp:/nologin\n' >"$rootfs/etc/passwd"
printf 'root:x:0:\napp:x:10001:\n' >"$rootfs/etc/group"
printf 'hosts: files dns\n' >"$rootfs/etc/nsswitch.conf"
