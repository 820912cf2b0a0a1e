#!/usr/bin/env bash
# Puts into one folder what a 64-bit ARM Linux or Android needs to run the program: the program, its libraries and their
# loader, the models that ship. docs/arm.md says how to bring it to a phone.
#
# usage: tools/phone_folder.sh [FOLDER]     (build-aarch64/phone, which is made anew)
#
# The libraries are those that tools/test_aarch64.sh unpacks.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
folder=${1:-build-aarch64/phone}
built=build-aarch64 libraries=build-aarch64-libraries
[[ -e $libraries/packages ]] || fail "there are no ARM libraries; run tools/test_aarch64.sh first"
if [[ -e $folder && ! -e $folder/lib/ld-linux-aarch64.so.1 ]]; then fail "$folder is there and is no such folder; remove it or name another"; fi
configure aarch64
build aarch64 contexture contexture_reference_backend
rm -rf "$folder"
mkdir -p "$folder/lib"

# Copies the libraries that a file asks for, and theirs.
copy_needed() {
  local name from
  for name in $(aarch64-linux-gnu-objdump -p "$1" | awk '$1 == "NEEDED" { print $2 }'); do
    [[ ! -e $folder/lib/$name ]] || continue
    from=$(find "$libraries" -name "$name" -print -quit)
    [[ $from ]] || fail "$1 needs $name, which is not in $libraries"
    cp -L "$from" "$folder/lib/"
    copy_needed "$folder/lib/$name"
  done
}

cp -r models "$folder/"
for file in contexture libcontexture_reference_backend.so; do
  aarch64-linux-gnu-strip -o "$folder/lib/$file" "$built/$file"
  copy_needed "$folder/lib/$file"
done
cat >"$folder/contexture" <<'SCRIPT'
#!/bin/sh
# The loader is called by name, since the system has none of its own or another.
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/lib/ld-linux-aarch64.so.1" --library-path "$here/lib" "$here/lib/contexture" "$@"
SCRIPT
chmod +x "$folder/contexture" "$folder/lib/ld-linux-aarch64.so.1" "$folder/lib/contexture"
du -sh "$folder" >&2
