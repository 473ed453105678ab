# shellcheck shell=bash disable=SC2034
# scripts/lib.sh: what check, demo and bench share.  To be sourced by bash.
#
# PS_ROOT   the clone
# PS_USER   the unprivileged user under which servers run: payshard-test for
#           root, otherwise whoever calls
# PS_WORK   a directory that this user owns, one per clone (ps_make_work makes it)
# PS_BIN    programs of the private PostgreSQL, once ps_private_pg was called
#
# Environment: PAYSHARD_WORK, PAYSHARD_PG_PREFIX (places), PAYSHARD_USER.

umask 022
PS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PS_SYSTEM_BIN=/usr/lib/postgresql/15/bin
if [ "$(id -u)" = 0 ]; then
	PS_USER=${PAYSHARD_USER:-payshard-test}
else
	PS_USER=$(id -un)
fi
PS_WORK=${PAYSHARD_WORK:-/var/tmp/payshard-$PS_USER-$(printf %s "$PS_ROOT" | sha256sum | cut -c1-8)}

# Nothing of the caller's own PostgreSQL environment may reach our servers.
unset PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGSERVICE \
	PGSERVICEFILE PGOPTIONS PGDATA PGAPPNAME PGSSLMODE PGTZ PGCLIENTENCODING PGSYSCONFDIR
export LC_ALL=C.UTF-8 LANGUAGE=

ps_note() { printf '== %s\n' "$*"; }
ps_die() { printf 'payshard: %s\n' "$*" >&2; exit 1; }

# ps_as_user COMMAND...: runs it as PS_USER, in PS_WORK (the caller's directory
# may be closed to this user, and PostgreSQL's programs want a readable one).
ps_as_user()
{
	(
		cd "$PS_WORK" 2>/dev/null || cd /
		if [ "$(id -u)" = 0 ]; then
			HOME=$PS_WORK LOGNAME=$PS_USER USER=$PS_USER exec runuser -u "$PS_USER" -- "$@"
		fi
		exec "$@"
	)
}

# ps_kill ARGUMENTS: kill as PS_USER, by the shell: /bin/kill need not be there.
ps_kill() { ps_as_user bash -c 'kill "$@"' kill "$@"; }

# Makes PS_WORK; refuses one that somebody else put there.
ps_make_work()
{
	if [ ! -e "$PS_WORK" ] && [ ! -L "$PS_WORK" ]; then
		mkdir -p "$(dirname "$PS_WORK")"
		mkdir -m 755 "$PS_WORK"
		[ "$(id -u)" != 0 ] || chown "$PS_USER:" "$PS_WORK"
	fi
	[ ! -L "$PS_WORK" ] && [ "$(stat -c %U "$PS_WORK")" = "$PS_USER" ] ||
		ps_die "$PS_WORK exists and does not belong to $PS_USER; remove it or set PAYSHARD_WORK"
}

# ps_build NAME DIRECTORY MAKE-ARGUMENTS...: make, quiet unless it fails.  The
# demo's "ps_build payshard . all" gives the library as it ships.
ps_build()
{
	local name=$1 directory=$2 log=$PS_ROOT/build/$1.log
	shift 2
	mkdir -p "$PS_ROOT/build"
	ps_note "building $name"
	# What a surrounding make was told ("T=...", -n) is not for this one.
	if ! env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -C "$PS_ROOT/$directory" -j"$(nproc)" "$@" \
		>"$log" 2>&1 </dev/null; then
		grep -vE '^(gcc|cc|clang)[0-9-]* ' "$log" | head -80 >&2 || true
		ps_die "$name does not build (log: $log)"
	fi
}

# ps_private_pg [SUFFIX]: makes or refreshes the private PostgreSQL with the
# payshard.so that stands in the clone now; sets PS_BIN and PS_PREFIX.  SUFFIX
# keeps kinds of builds apart ("-check").
ps_private_pg()
{
	PS_PREFIX=$("$PS_ROOT/scripts/private-pg" "${1:-}") || exit 1
	PS_BIN=$PS_PREFIX/usr/lib/postgresql/15/bin
}

# ps_pg_init DATADIR PORT: a new data directory (trust, loopback only) with
# the places it needs; the rest of the settings is the caller's, by ps_pg_conf.
ps_pg_init()
{
	ps_as_user "$PS_BIN/initdb" -D "$1" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null ||
		ps_die "initdb failed for $1"
	ps_pg_conf "$1" <<-CONF
		port = $2
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$PS_WORK'
		jit = off
	CONF
}

# ps_pg_conf DATADIR < lines: appends them to postgresql.conf.
ps_pg_conf() { ps_as_user tee -a "$1/postgresql.conf" >/dev/null; }

# ps_pg_start DATADIR: starts the server and waits until it answers; its log is
# DATADIR.log.
ps_pg_start()
{
	ps_as_user "$PS_BIN/pg_ctl" -D "$1" -l "$1.log" -w -t 60 start >/dev/null 2>&1 </dev/null || {
		ps_as_user tail -30 "$1.log" >&2
		ps_die "the server in $1 did not start (log: $1.log)"
	}
}

# ps_pg_stop DATADIR [MODE]: stops it if it runs.
ps_pg_stop()
{
	ps_as_user test -f "$1/postmaster.pid" || return 0
	ps_as_user "$PS_BIN/pg_ctl" -D "$1" -m "${2:-fast}" -w -t 60 stop >/dev/null 2>&1 </dev/null || true
	ps_pg_kill "$1"
}

# ps_pg_kill DATADIR: kill -9 to the postmaster of this directory, and only if
# the pid in the file is really a process that sits in it.  Waits until it has
# left the process table: while it is a zombie (for a second in some containers),
# PostgreSQL would take its pid file for that of a living server.
ps_pg_kill()
{
	local pid
	pid=$(ps_as_user head -n 1 "$1/postmaster.pid" 2>/dev/null) || return 0
	[ -n "$pid" ] && [ "$(ps_as_user readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$1")" ] || return 0
	ps_kill -9 "$pid"
	ps_wait 30 "process $pid and its children to be gone" ps_is_gone "$pid" "$(readlink -f "$1")"
}
# Children outlive a killed postmaster for a moment, and a server does not start beside them.
ps_is_gone()
{
	[ ! -e "/proc/$1" ] && ! readlink /proc/[0-9]*/cwd 2>/dev/null | grep -qxF "$2"
}

# ps_wait SECONDS "what" COMMAND...: polls until it succeeds; a line on timeout.
ps_wait()
{
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $deadline ]; then
			printf 'payshard: gave up waiting for %s\n' "$what" >&2
			return 1
		fi
		sleep 0.2
	done
}
