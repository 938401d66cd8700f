# shellcheck shell=bash
# Sets a host up for galleria. Sourced by scripts/run, scripts/test and scripts/check (bash).
#
#   host_setup KIND      KIND: run (galleria), demonstration, test; each includes the one before;
#                        bench is the demonstration's, and the peers of the benchmark
#
# Packages come from the distribution; the Python environment is .venv, of the distribution's own
# python3, because the libguestfs bindings exist only there. Nothing is done twice: packages that
# are there are left alone, and .venv is renewed only when a list of requirements changed.

readonly EXIT_ENVIRONMENT=3
DRY_RUN=${DRY_RUN:-}

# --- which packages ------------------------------------------------------------------------------

# What galleria's work needs | what the demonstration's guest needs | what the tests need | the
# benchmark's peers
# shellcheck disable=SC2034  # by name: host_packages
declare -A DEBIAN=(
  [run]="python3 python3-venv python3-guestfs libguestfs-tools libguestfs-xfs python3-libnbd
    libdeflate0 libzstd1 qemu-utils qemu-system-x86 ovmf bubblewrap e2fsprogs xfsprogs btrfs-progs
    dosfstools ntfs-3g fdisk util-linux lz4 zstd gzip bzip2 xz-utils"
  [demonstration]="mmdebstrap fakeroot uidmap debian-archive-keyring grub-common grub-pc-bin mtools
    tar"
  [test]="git grub-efi-amd64-bin libhivex-bin libvirt0 libvirt-clients libvirt-daemon
    libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-daemon-config-network dnsmasq-base
    iptables libxml2-utils vagrant vagrant-libvirt shellcheck strace
    guestfs-tools cryptsetup-bin postgresql cpio qemu-system-arm qemu-efi-aarch64
    groff-base"
  [bench]="rsync casync borgbackup restic diffutils guestfs-tools"
)
# shellcheck disable=SC2034
declare -A FEDORA=(
  [run]="python3 python3-libguestfs guestfs-tools libguestfs-xfs python3-libnbd qemu-img
    libdeflate libzstd qemu-system-x86-core edk2-ovmf bubblewrap e2fsprogs xfsprogs btrfs-progs
    dosfstools ntfs-3g util-linux lz4 zstd gzip bzip2 xz"
  [demonstration]="mmdebstrap fakeroot shadow-utils debian-keyring grub2-tools grub2-pc-modules
    mtools tar"
  [test]="git grub2-efi-x64-modules hivex libvirt-libs libvirt-client libvirt-daemon
    libvirt-daemon-driver-qemu libvirt-daemon-config-network dnsmasq iptables-nft libxml2 vagrant
    vagrant-libvirt ShellCheck strace cryptsetup
    postgresql-server cpio qemu-system-aarch64-core edk2-aarch64 groff-base"
  [bench]="rsync casync borgbackup restic diffutils"
)

# The table of this distribution's packages for a kind of work, and for every kind it includes.
host_packages() {
  local -n table="$1"
  local kind kinds="run demonstration $2"
  [[ $2 == run ]] && kinds=run
  for kind in $kinds; do
    echo "${table[$kind]}"
    [[ $kind == "$2" ]] && break
  done
}

# libguestfs boots the host's kernel: a container or a minimal host has none, or hides it.
host_kernel_package() {
  local kernel
  for kernel in /boot/vmlinuz-* /lib/modules/*/vmlinuz; do
    [[ -e $kernel ]] && return
  done
  case $1 in
    debian) echo linux-image-cloud-amd64 ;;
    ubuntu) echo linux-image-virtual ;;
    fedora) echo kernel-core ;;
  esac
}

host_distribution() {
  local ID="" ID_LIKE=""
  # shellcheck source=/dev/null
  [[ -r ${OS_RELEASE:-/etc/os-release} ]] && . "${OS_RELEASE:-/etc/os-release}"
  case " $ID $ID_LIKE " in
    *" ubuntu "*) echo ubuntu ;;
    *" debian "*) echo debian ;;
    *" fedora "*) echo fedora ;;
    *) echo "unknown ${ID:-system}" ;;
  esac
}

# Of the packages on standard input, those that are not installed.
host_missing() {
  local wanted installed
  wanted=$(tr -s ' \n' '\n' | sed '/^$/d' | sort -u)
  case $1 in
    debian | ubuntu)
      # ${...} is dpkg-query's own format
      # shellcheck disable=SC2016,SC2086
      installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
        sed -n 's/^installed //p' | sort -u)
      ;;
    fedora)
      # shellcheck disable=SC2086
      installed=$(rpm -q --queryformat '%{NAME}\n' $wanted 2>/dev/null | grep -v ' ' | sort -u)
      ;;
  esac
  comm -23 <(echo "$wanted") <(echo "$installed")
}

# Not every release has these (Vagrant's licence changed): their tests skip without them.
readonly OPTIONAL="vagrant vagrant-libvirt"

# --- doing it ------------------------------------------------------------------------------------

host_as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "galleria: installing packages needs root: run this as root, or install sudo" >&2
    exit $EXIT_ENVIRONMENT
  fi
}

host_install() {
  local distribution=$1 package
  shift
  local packages=("$@")
  case $distribution in
    debian | ubuntu)
      host_as_root apt-get -q update
      packages=()
      for package; do
        if [[ " $OPTIONAL " == *" $package "* && -z $(apt-cache madison "$package") ]]; then
          echo "galleria: this release has no package $package; going on without it"
        else
          packages+=("$package")
        fi
      done
      host_as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install --no-install-recommends "${packages[@]}"
      ;;
    fedora) host_as_root dnf -q -y install --setopt=install_weak_deps=False "${packages[@]}" ;;
  esac
}

# Ubuntu keeps kernels from ordinary users; libguestfs run by one must be able to read it.
host_readable_kernel() {
  local kernel
  ((EUID == 0)) && return
  for kernel in /boot/vmlinuz-*; do
    [[ -r $kernel ]] && return
  done
  [[ -e $kernel ]] || return 0
  echo "galleria: making $kernel readable, so that libguestfs works without root" >&2
  [[ -n $DRY_RUN ]] || host_as_root dpkg-statoverride --update --add root root 0644 "$kernel"
}

host_unknown() {
  {
    echo "galleria: no package table for this distribution ($1)."
    echo "What must be there (Debian's names of the packages):"
    host_packages DEBIAN "$2" | tr -s ' \n' '\n' | sed '/^$/d; s/^/  /'
    echo "  and a kernel in /boot that the user can read"
    echo "Install them, then: SKIP_PACKAGES=1 ${0##*/}"
  } >&2
  exit $EXIT_ENVIRONMENT
}

host_setup_packages() {
  local kind=$1 distribution missing table=DEBIAN
  [[ -n ${SKIP_PACKAGES:-} ]] && return
  distribution=$(host_distribution)
  case $distribution in
    unknown*) host_unknown "${distribution#unknown }" "$kind" ;;
    fedora) table=FEDORA ;;
  esac
  missing=$({
    host_packages $table "$kind"
    host_kernel_package "$distribution"
  } | host_missing "$distribution" | tr '\n' ' ')
  if [[ -n $missing ]]; then
    echo "galleria: packages to install: $missing" >&2
    # shellcheck disable=SC2086
    [[ -n $DRY_RUN ]] || host_install "$distribution" $missing >&2
  elif [[ -n $DRY_RUN ]]; then
    echo "galleria: packages to install: none" >&2
  fi
  host_readable_kernel
}

host_requirements() {
  echo requirements.txt
  [[ $1 == run ]] || echo tests/requirements.txt
}

# What an environment of this kind is made from, in one word.
host_python_digest() {
  local lists
  mapfile -t lists < <(host_requirements "$1")
  {
    cat "${lists[@]}" pyproject.toml
    readlink -f /usr/bin/python3
    pwd
  } | sha256sum | cut -d' ' -f1
}

host_setup_python() {
  local kind=$1 lists made
  # what the tests have includes what galleria has
  for made in run test; do
    [[ $kind == test && $made == run ]] && continue
    [[ -r .venv/.setup-$made && $(<".venv/.setup-$made") == $(host_python_digest $made) ]] && return
  done
  mapfile -t lists < <(host_requirements "$kind")
  if [[ -n $DRY_RUN ]]; then
    echo "galleria: Python environment to make in .venv from: ${lists[*]}" >&2
    return
  fi
  if ! /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "galleria: $(/usr/bin/python3 -V) is too old: Python 3.11 or newer is needed" >&2
    exit $EXIT_ENVIRONMENT
  fi
  echo "galleria: making the Python environment .venv from ${lists[*]}" >&2
  [[ -x .venv/bin/pip ]] || /usr/bin/python3 -m venv --system-site-packages .venv >&2
  .venv/bin/pip install -qq --disable-pip-version-check "${lists[@]/#/--requirement=}" >&2
  # the project itself, editable; setuptools is pinned above, so nothing else is fetched
  .venv/bin/pip install -qq --disable-pip-version-check --no-build-isolation --no-deps \
    --editable . >&2
  host_python_digest "$kind" >".venv/.setup-$kind"
}

# Make the host ready. With DRY_RUN set, say what would be done and do nothing.
host_setup() {
  local kind=$1
  host_setup_packages "$kind"
  [[ $kind == demonstration ]] && kind=run
  [[ $kind == bench ]] && kind="test"
  host_setup_python "$kind"
}
