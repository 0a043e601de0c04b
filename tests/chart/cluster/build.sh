#!/usr/bin/env bash
# build.sh FOLDER: a kube-apiserver and an etcd in FOLDER, from Debian packages; nothing on the system is touched.
#
# Debian has no kube-apiserver binary. Its bookworm source package holds all of Kubernetes 1.20.2, which its
# Go 1.19 builds once reflect2 is Debian's own (Go 1.18 and later need it). About 300 MB of downloads and ten
# minutes on two cores, once. Needs apt (Debian or Ubuntu), dpkg-deb, jq, make, gcc.
set -euo pipefail

target=$(realpath -m "$1")
[ -x "$target/kube-apiserver" ] && [ -x "$target/etcd" ] && { echo "Already built in $target"; exit 0; }
for tool in apt-get dpkg-deb jq make gcc; do
  command -v "$tool" >/dev/null || { echo "$tool is needed and was not found." >&2; exit 1; }
done

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || { echo "$keyring is needed: install the package debian-archive-keyring." >&2; exit 1; }
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
work=$(mktemp -d "${TMPDIR:-/tmp}/kube-apiserver.XXXXXX")
trap 'rm -rf "$work"' EXIT

mkdir -p "$work"/{lists/partial,cache/archives/partial,state,debs,root,src} "$target"
touch "$work/status"
printf 'deb [signed-by=%s] %s bookworm main\ndeb-src [signed-by=%s] %s bookworm main\n' \
  "$keyring" "$mirror" "$keyring" "$mirror" > "$work/sources.list"
cat > "$work/apt.conf" <<EOF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$work/state";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
APT::Architecture "amd64";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "5";
EOF
export APT_CONFIG=$work/apt.conf

echo "Fetching packages"
apt-get update -qq
(cd "$work/debs" && apt-get download -qq golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev etcd-server rsync libpopt0 libxxhash0)
(cd "$work/src" && apt-get source -qq --download-only kubernetes)
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
tar -xzf "$work"/src/kubernetes_*.orig.tar.gz -C "$work/src"
source=$(echo "$work"/src/kubernetes*/)

go=$work/root/usr/lib/go-1.19
ln -sfn "$work/root/usr/share/go-1.19/src" "$go/src" 2>/dev/null || true
reflect=$source/vendor/github.com/modern-go/reflect2
rm -rf "$reflect"
cp -r "$work/root/usr/share/gocode/src/github.com/modern-go/reflect2" "$reflect"

echo "Building kube-apiserver"
export PATH=$go/bin:$work/root/usr/bin:$PATH GOROOT=$go GOFLAGS=-mod=vendor CGO_ENABLED=0 HOME=$work
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_TREE_STATE=archive KUBE_GIT_COMMIT=debian KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
make -C "$source" WHAT=cmd/kube-apiserver
install -m 0755 "$source"/_output/local/bin/linux/amd64/kube-apiserver "$target/kube-apiserver"
install -m 0755 "$work/root/usr/bin/etcd" "$target/etcd"
echo "Built in $target"
