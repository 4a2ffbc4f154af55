# shellcheck shell=bash
# Functions that the scripts of this folder share; they source it after their settings.

dry=no

# Prints a command as it can be typed, and runs it unless this is a dry run.
call() {
  printf '+' >&2
  printf ' %q' "$@" >&2
  printf '\n' >&2
  [ "$dry" = yes ] || "$@"
}

# Prints words as one command line of a remote shell, each quoted.
quoted() {
  local line=""
  printf -v line ' %q' "$@"
  printf '%s' "${line# }"
}

# Ends the script with a message and exit code 2.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

# Refuses settings that were not edited: their names are the arguments.
need() {
  local name
  for name in "$@"; do
    case "${!name}" in
      "" | my-* | gs://my-*) fail "$name is ${!name:-empty}: edit the top of $0, or set it" ;;
    esac
  done
}

# Ends the script with the exit code $1 after `$2 ...` has removed the machines, if DELETE asks.
finish() {
  local code="$1" why="kept"
  shift
  case "$DELETE" in
    always) why="" ;;
    success) [ "$code" -ne 0 ] || why="" ;;
    never) ;;
    *) fail "DELETE=$DELETE is not always, success or never" ;;
  esac
  if [ -z "$why" ]; then
    "$@" || echo "the machines could not be removed: they still cost money" >&2
  else
    echo "the machines are kept, and cost money until they are removed: $*" >&2
  fi
  exit "$code"
}
