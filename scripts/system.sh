# Sourced: installs from the system's packages what a fresh Debian machine lacks. Says what it does; does nothing where nothing lacks.

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else
    echo "this needs root: $*" >&2
    echo "run it as root, install sudo, or install the packages yourself" >&2
    return 1
  fi
}

install_packages() {
  command -v apt-get >/dev/null || {
    echo "$* missing, and there is no apt-get: install them with your system's package manager, then try again" >&2
    return 1
  }
  echo "installing $* from the system's packages"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  # only the programs are wanted: nothing may start a service of the system's
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  else
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod +x $policy"
    local status=0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" || status=$?
    as_root rm -f "$policy"
    return $status
  fi
}

need_redis() {
  command -v redis-server >/dev/null && command -v redis-cli >/dev/null || install_packages redis-server
}

need_compiler() {
  command -v cargo >/dev/null || {
    echo "cargo is missing: install Rust (https://rustup.rs), then try again" >&2
    return 1
  }
  command -v cc >/dev/null || install_packages gcc libc6-dev
}

need_python() {
  command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
}
