# Finds or installs what a build needs. Sourced by ./culebra and .ci/run; sets JAVA_HOME.
# On Debian and Ubuntu as root missing packages are installed; otherwise one message names the exact line to run.

say() { printf '%s\n' "$*" >&2; }

# The first JDK of version 25 or newer: JAVA_HOME, the usual places, the PATH.
find_jdk() {
  local home major
  for home in "${JAVA_HOME:-}" /usr/lib/jvm/* "$HOME"/.sdkman/candidates/java/* /opt/java/* /opt/jdk* \
              "$(dirname "$(dirname "$(readlink -f "$(command -v javac || echo /)")")")"; do
    [ -n "$home" ] && [ -x "$home/bin/javac" ] || continue
    major=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$home/release" 2>/dev/null)
    if [ "${major:-0}" -ge 25 ]; then
      printf '%s\n' "$home"
      return 0
    fi
  done
  return 1
}

# need_packages NAME:PROBE...: PROBE is a command, or a file when it begins with /. Several files: any of them serves.
need_packages() {
  local missing=() entry probe found p
  for entry in "$@"; do
    probe=${entry#*:} found=
    for p in ${probe//,/ }; do
      case $p in
        /*) compgen -G "$p" >/dev/null && found=1 ;;
        *) command -v "$p" >/dev/null && found=1 ;;
      esac
    done
    [ -n "$found" ] || missing+=("${entry%%:*}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    say "installing: ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 && return 0
    say "could not install: ${missing[*]}"
    return 3
  fi
  say "Culebra needs packages that are missing here: ${missing[*]}"
  if command -v apt-get >/dev/null; then
    say "Run:  sudo apt-get install -y ${missing[*]}"
  else
    say "Install the equivalents of these Debian packages with your system's package manager."
  fi
  return 3
}

need_jdk() {
  if ! JAVA_HOME=$(find_jdk); then
    say "Culebra needs a JDK 25 or newer; none was found in JAVA_HOME, /usr/lib/jvm, ~/.sdkman or on the PATH."
    say "Run:  sudo apt-get install -y openjdk-25-jdk-headless   (or unpack one from https://adoptium.net and set JAVA_HOME)"
    return 3
  fi
  export JAVA_HOME PATH="$JAVA_HOME/bin:$PATH"
}

build_packages=(cmake:cmake ninja-build:ninja g++:g++ libhwy-dev:/usr/include/hwy/highway.h,/usr/local/include/hwy/highway.h maven:mvn)
test_packages=(libgtest-dev:/usr/include/gtest/gtest.h,/usr/local/include/gtest/gtest.h)
