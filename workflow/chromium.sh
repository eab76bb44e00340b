#!/bin/sh
# Unpack Debian's headless Chromium into a folder, without root: for `workflow/screenshots.py` and
# its test. Only packages that this machine lacks are fetched; apt's lists have to be there.
#
#     sh workflow/chromium.sh .cache/chromium && export SKILL_CHROMIUM="$PWD/.cache/chromium/chromium"
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1/packages" "$1/root"
place=$(cd "$1" && pwd)
plan=$(apt-get install --simulate --no-install-recommends chromium-headless-shell)
missing=$(printf '%s\n' "$plan" | awk '/^Inst/ {print $2}')
[ -n "$missing" ] || { echo "chromium-headless-shell is installed already"; exit 0; }
# shellcheck disable=SC2086
(cd "$place/packages" && apt-get download $missing)
for package in "$place"/packages/*.deb; do
    dpkg-deb --extract "$package" "$place/root"
done
libraries=$(find "$place/root/usr/lib" -name '*.so*' -exec dirname {} + | sort -u | tr '\n' ':')
cat > "$place/chromium" <<EOF
#!/bin/sh
LD_LIBRARY_PATH='$libraries' exec '$place/root/usr/lib/chromium/chromium-headless-shell' "\$@"
EOF
chmod +x "$place/chromium"
"$place/chromium" --version
