#!/bin/sh
# Installs what the build needs and is missing: Debian 12 and Ubuntu packages, through apt, with sudo when not root.
# Quiet and instant when everything is there.
set -eu

packages="gcc g++ make cmake ninja-build pkg-config git libyaml-dev libhdf5-dev libdnnl-dev libcriterion-dev libjansson-dev libxxhash-dev libpcre2-dev libutf8proc-dev libopenmpi-dev openmpi-bin"

missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "setup: no apt-get here; please install the equivalents of:$missing" >&2
  exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 || { echo "setup: not root and no sudo; as root run: apt-get install$missing" >&2; exit 1; }
  sudo="sudo"
fi
echo "setup: installing$missing"
$sudo apt-get update -q
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends $missing
