#!/usr/bin/env bash
# A team's server by plain processes: PostgreSQL, MLflow with users, and a Dask scheduler. docs/howto/team-server.md
# tells how to use it.
#
#   server.sh start              start what does not run yet; the first time, make database, passwords and certificate
#   server.sh stop               end what `start` started
#   server.sh status             exit status 0: all run; 3: none; 1: some
#   server.sh user NAME          make a user, or give them a new password; writes users/NAME.env
#   server.sh backup FOLDER      write database, artifacts, passwords and settings to a new folder in FOLDER
#   server.sh restore BACKUP     fill an empty server from such a folder
#   server.sh secrets FILE       only make random passwords, for compose.yaml
#
# Everything lies in the folder DEEPMERGE_SERVER. The first start takes settings from the environment (SERVER_HOST, …,
# see `write_settings`) and keeps them in settings.env there; afterwards that file alone holds.
set -euo pipefail
umask 077
PATH=$PATH:/usr/sbin:/sbin  # of runuser, which a short PATH leaves out
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ $EUID == 0 ]]; then home=/var/lib/deepmerge-server; else home=$HOME/deepmerge-server; fi
home=$(realpath -m "${DEEPMERGE_SERVER:-$home}")

say() { printf 'server.sh: %s\n' "$*"; }
refuse() { say "$*" >&2; exit 2; }
fail() { say "$*" >&2; exit 1; }
usage() { sed -n '5,11s/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# --- Settings and passwords -------------------------------------------------------------------------------------

# NAME='VALUE' as a shell and docker compose both read it.
line() {
	case $2 in *\'* | *$'\n'*) refuse "$1 should hold neither a quote nor a line break" ;; esac
	printf "%s='%s'\n" "$1" "$2"
}

write_settings() {
	local host=${SERVER_HOST:-127.0.0.1} port=${SERVER_PORT:-5000}
	{
		echo "# Settings of this server. After a change: server.sh stop, server.sh start."
		echo "# The address on which MLflow and Dask listen. 127.0.0.1: only for this machine."
		line SERVER_HOST "$host"
		line SERVER_PORT "$port"
		echo "# The names by which others call this server, with the port; a request for another name is refused."
		line SERVER_ALLOWED_HOSTS "${SERVER_ALLOWED_HOSTS:-localhost:*,127.0.0.1:*}"
		echo "# The address that users are told."
		line SERVER_URL "${SERVER_URL:-http://$host:$port}"
		line SERVER_WORKERS "${SERVER_WORKERS:-4}"
		echo "# Whoever holds the key in dask/ runs code as the user of this server. Empty: no scheduler."
		line DASK_PORT "${DASK_PORT-8786}"
		echo "# The PostgreSQL server. An empty PGHOST: one of its own, on 127.0.0.1."
		line PGHOST "${PGHOST:-}"
		line PGPORT "${PGPORT:-5432}"
		line PGUSER "${PGUSER:-mlflow}"
		line PGDATABASE "${PGDATABASE:-mlflow}"
	} > "$home/settings.env.new"
	mv "$home/settings.env.new" "$home/settings.env"
}

write_secrets() {
	# Nothing is made up for a database that is there already, and nothing is guessable.
	local database=${PGPASSWORD:-}
	[[ -n $database || -z ${PGHOST:-} ]] ||
		refuse "PGPASSWORD should be the password for PostgreSQL on $PGHOST, and is not set"
	{
		line MLFLOW_AUTH_ADMIN_PASSWORD "${MLFLOW_AUTH_ADMIN_PASSWORD:-$(openssl rand -hex 20)}"
		line MLFLOW_FLASK_SERVER_SECRET_KEY "${MLFLOW_FLASK_SERVER_SECRET_KEY:-$(openssl rand -hex 32)}"
		line PGPASSWORD "${database:-$(openssl rand -hex 20)}"
	} > "$1.new"
	mv "$1.new" "$1"
}

# Dask runs what it is sent, for whoever reaches it: only holders of this key do.
write_key() {
	mkdir -p "$home/dask.new"
	openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=deepmerge -keyout "$home/dask.new/key.pem" \
		-out "$home/dask.new/certificate.pem" 2> /dev/null || fail "openssl made no certificate"
	mv "$home/dask.new" "$home/dask"
}

# For DASK_CONFIG; anew each time, since a backup may be restored to another folder.
write_dask() {
	local pair="{cert: '$home/dask/certificate.pem', key: '$home/dask/key.pem'}"
	cat > "$home/dask/dask.yaml" <<-END
		distributed:
		  comm:
		    tls:
		      ca-file: '$home/dask/certificate.pem'
		      scheduler: $pair
		      worker: $pair
		      client: $pair
	END
}

load() {
	for program in python openssl curl flock setsid ps; do
		command -v "$program" > /dev/null || refuse "$program should be on the PATH, and is not"
	done
	local found="import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
	python -c "$found" mlflow flask_wtf psycopg distributed ||
		refuse "python on the PATH should have the packages of the server: pip install 'deepmerge-lab[server]'"
	mkdir -p "$home"/{log,run,users}
	# PostgreSQL's own user, where it is another than ours, passes through to its data.
	chmod 711 "$home"
	[[ -e $home/secrets.env ]] || write_secrets "$home/secrets.env"
	[[ -e $home/settings.env ]] || write_settings
	[[ -e $home/dask ]] || write_key
	write_dask
	settle
}

settle() {
	set -a
	# shellcheck source=/dev/null
	source "$home/settings.env"
	# shellcheck source=/dev/null
	source "$home/secrets.env"
	SERVER_ARTIFACTS=$home/artifacts
	set +a
	is_own=
	if [[ -z $PGHOST ]]; then
		is_own=yes PGHOST=127.0.0.1
	fi
	# What the caller's shell holds for a client is not meant for the server.
	unset MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD
	[[ $SERVER_HOST != 0.0.0.0 ]] && reached=$SERVER_HOST || reached=127.0.0.1
}

is_there() {
	[[ -e $home/settings.env && -e $home/secrets.env ]] || refuse "no server in $home; server.sh start makes one"
}

# --- PostgreSQL ------------------------------------------------------------------------------------------------

programs() {
	local found
	found=$(command -v initdb || true)
	[[ -n $found ]] || found=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
	[[ -x $found ]] || refuse "PostgreSQL should be installed (Debian: apt install postgresql), or PGHOST name a server"
	dirname "$(readlink -f "$found")"
}

# PostgreSQL refuses to run as root: then its server runs as its own user.
as_postgres() {
	local first=()
	if [[ $EUID == 0 ]]; then
		id postgres &> /dev/null || refuse "PostgreSQL does not run as root, and there is no user postgres; be another user"
		first=(runuser -u postgres --)
		"${first[@]}" test -x "$home" || refuse "user postgres should have access to $home; name another DEEPMERGE_SERVER"
	fi
	(cd / && "${first[@]}" env -i PATH="$PATH" LC_ALL=C "$@")
}

postgres_runs() { as_postgres "$(programs)/pg_ctl" -D "$home/postgres/data" status &> /dev/null; }

start_postgres() {
	[[ -n $is_own ]] || return 0
	if postgres_runs; then return; fi
	local bin folder=$home/postgres
	bin=$(programs)
	if [[ ! -e $folder/data ]]; then
		rm -rf "$folder"
		mkdir -p "$folder"
		printf '%s\n' "$PGPASSWORD" > "$folder/password"
		[[ $EUID != 0 ]] || chown -R postgres "$folder"
		as_postgres "$bin/initdb" -D "$folder/data.new" -U "$PGUSER" -A scram-sha-256 --pwfile="$folder/password" \
			--encoding=UTF8 --no-locale > "$home/log/initdb.log" 2>&1 || fail "initdb failed; see $home/log/initdb.log"
		rm "$folder/password"
		mv "$folder/data.new" "$folder/data"
	fi
	# Each of MLflow's workers keeps up to 15 connections for runs and 15 for users.
	local options="-p $PGPORT -c max_connections=$((30 * SERVER_WORKERS + 20))"
	options+=" -c listen_addresses=127.0.0.1 -c unix_socket_directories="
	as_postgres "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -o "$options" -w start > /dev/null 9>&- ||
		fail "PostgreSQL did not start; see $folder/log"
	psql_quiet -d postgres -c "SELECT 1 FROM pg_database WHERE datname = '$PGDATABASE'" | grep -q 1 ||
		psql_quiet -d postgres -c "CREATE DATABASE \"$PGDATABASE\""
}

psql_quiet() { client psql -v ON_ERROR_STOP=1 -qtAX "$@"; }

# A program of PostgreSQL that talks to a server: beside our own server's programs, or on the PATH.
client() {
	local program=$1
	shift
	if [[ -n $is_own ]]; then program=$(programs)/$program; fi
	"$program" "$@"
}

stop_postgres() {
	if [[ -n $is_own ]] && postgres_runs; then
		as_postgres "$(programs)/pg_ctl" -D "$home/postgres/data" -m fast -w stop > /dev/null
	fi
}

# --- Processes of our own --------------------------------------------------------------------------------------

# Each leads a session of its own, whose number is kept in run/. A number is given out again some day: only those of its
# processes are ours whose environment names this server.
members() {
	local pid leader
	leader=$(cat "$home/run/$1" 2> /dev/null) || return 0
	for pid in $(ps -o pid= -s "$leader"); do
		if grep -qzFx "SERVER_ARTIFACTS=$SERVER_ARTIFACTS" "/proc/$pid/environ" 2> /dev/null; then echo "$pid"; fi
	done
}

runs() {
	local found leader
	found=$(members "$1")
	leader=$(cat "$home/run/$1" 2> /dev/null) && [[ " ${found//$'\n'/ } " == *" $leader "* ]]
}

launch() {
	local name=$1 port=$2
	shift 2
	if runs "$name"; then return; fi
	end "$name"
	! is_taken "$port" || refuse "port $port of $reached is taken; choose another in $home/settings.env"
	# Neither Ctrl-C nor the end of this shell reaches another session.
	(cd "$home" && exec setsid "$@") < /dev/null >> "$home/log/$name" 2>&1 9>&- &
	disown
	echo $! > "$home/run/$name"
	# Until it has its session and environment, it is not to be told from a stranger.
	until runs "$name" || ! kill -0 $! 2> /dev/null; do sleep 0.1; done
}

await() {
	local name=$1 deadline=$((SECONDS + 300))
	shift
	until "$@" &> /dev/null; do
		runs "$name" || fail "$name ended; the end of $home/log/$name: $(tail -n 3 "$home/log/$name")"
		((SECONDS < deadline)) || fail "$name did not answer within five minutes; see $home/log/$name"
		sleep 0.3
	done
}

# What is left of a leader that was killed ends, too.
end() {
	local name=$1 left deadline=$((SECONDS + 60)) signal=TERM
	left=$(members "$name")
	if runs "$name"; then left=$(cat "$home/run/$name"); fi
	while [[ -n $left ]]; do
		# shellcheck disable=SC2086  # each a word
		[[ -z $signal ]] || kill -$signal $left 2> /dev/null || true
		signal=
		((SECONDS < deadline)) || signal=KILL
		sleep 0.2
		left=$(members "$name")
	done
	rm -f "$home/run/$name"
}

is_taken() { (: < "/dev/tcp/$reached/$1") 2> /dev/null; }
mlflow_answers() { curl -fsS --noproxy '*' --max-time 5 "http://$reached:$SERVER_PORT/health"; }
dask_answers() { is_taken "$DASK_PORT"; }

# --- Commands --------------------------------------------------------------------------------------------------

start() {
	load
	mkdir -p "$SERVER_ARTIFACTS"
	start_postgres
	launch mlflow "$SERVER_PORT" "$here/mlflow.sh"
	if [[ -n $DASK_PORT ]]; then
		launch dask-scheduler "$DASK_PORT" env -u PGPASSWORD -u MLFLOW_AUTH_ADMIN_PASSWORD -u MLFLOW_FLASK_SERVER_SECRET_KEY \
			DASK_CONFIG="$home/dask" python -m distributed.cli.dask_scheduler --protocol tls \
			--host "$SERVER_HOST" --port "$DASK_PORT" --no-dashboard
		await dask-scheduler dask_answers
	fi
	await mlflow mlflow_answers
	status
	say "passwords are in $home/secrets.env, settings in $home/settings.env"
}

stop() {
	is_there
	settle
	end dask-scheduler
	end mlflow
	stop_postgres
	say "stopped"
}

status() {
	is_there
	settle
	local up=0 all=0
	if [[ -n $is_own ]]; then tell postgres "$PGHOST:$PGPORT" postgres_runs; fi
	tell mlflow "http://$reached:$SERVER_PORT" mlflow_answers
	if [[ -n $DASK_PORT ]]; then tell dask-scheduler "tls://$reached:$DASK_PORT" dask_answers; fi
	((up < all)) || return 0
	((up == 0)) && return 3 || return 1
}

# One line of `status`, counted in its `up` and `all`: name, address, and a command that tells whether it answers.
tell() {
	local said="does not run"
	all=$((all + 1))
	if [[ $1 == postgres ]] || runs "$1"; then
		if "$3" &> /dev/null; then
			said="runs on $2" up=$((up + 1))
		elif [[ $1 != postgres ]]; then
			said="runs, but does not answer on $2"
		fi
	fi
	printf '%-15s %s\n' "$1" "$said"
}

user() {
	is_there
	settle
	local code=0
	mkdir -p "$home/users"
	python "$here/user.py" "$1" > "$home/users/new" || code=$?
	if ((code)); then
		rm "$home/users/new"
		exit $code
	fi
	mv "$home/users/new" "$home/users/$1.env"
	say "$1 may log in with what is in $home/users/$1.env"
}

backup() {
	is_there
	settle
	[[ -d $1 ]] || refuse "a folder for backups should be there, got $1"
	local to was
	to=$(cd "$1" && pwd)/$(date +%Y-%m-%dT%H-%M-%S)
	[[ ! -e $to ]] || refuse "$to is there already"
	mkdir "$to.part"
	# shellcheck disable=SC2064  # the name as it is now
	trap "rm -rf '$to.part'" EXIT
	postgres_runs && was=running || was=stopped
	start_postgres
	# The database first: what it tells of was uploaded before.
	client pg_dump -Fc -f "$to.part/database" || fail "pg_dump failed"
	[[ $was == running ]] || stop_postgres
	# 1: a file grew while it was read, which is one of a run that goes on.
	tar -C "$home" -cf "$to.part/artifacts.tar" artifacts || (($? == 1)) || fail "tar failed"
	cp -r "$home"/{settings.env,secrets.env,dask,users} "$to.part"
	(cd "$to.part" && sums=$(find . -type f -exec sha256sum {} +) && printf '%s\n' "$sums" > SHA256SUMS)
	mv "$to.part" "$to"
	say "backup in $to"
}

restore() {
	[[ -e $1/SHA256SUMS ]] || refuse "a folder that 'server.sh backup' has made should be given, got $1"
	for name in postgres artifacts; do
		[[ ! -e $home/$name ]] || refuse "an empty server should be filled, but $home/$name is there; move $home away first"
	done
	local from
	from=$(cd "$1" && pwd)
	(cd "$from" && sha256sum --quiet -c SHA256SUMS) || fail "the backup is damaged; nothing was restored"
	mkdir -p "$home"
	for name in settings.env secrets.env users; do
		[[ -e $home/$name ]] || cp -r "$from/$name" "$home"
	done
	if [[ ! -e $home/dask ]]; then cp -r "$from/dask" "$home"; fi
	load
	if [[ -z $is_own ]]; then
		local tables
		tables=$(psql_quiet -c "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
		[[ $tables == 0 ]] || refuse "an empty database should be filled, but $PGDATABASE on $PGHOST has $tables tables"
	fi
	# A restore that fails leaves an empty server, which the next one can fill.
	trap 'stop_postgres; rm -rf "$home/artifacts"; [[ -z $is_own ]] || rm -rf "$home/postgres"' EXIT
	start_postgres
	client pg_restore --exit-on-error --single-transaction --no-owner -d "$PGDATABASE" "$from/database" ||
		fail "pg_restore failed"
	tar -C "$home" -xf "$from/artifacts.tar" || fail "tar failed"
	trap - EXIT
	stop_postgres
	say "restored $from; server.sh start starts it"
}

command=${1:-}
[[ $# -gt 0 ]] && shift
case $command in
start | stop | status) [[ $# == 0 ]] || usage ;;
user | backup | restore | secrets) [[ $# == 1 ]] || usage ;;
*) usage ;;
esac
if [[ $command == secrets ]]; then
	[[ ! -e $1 ]] || refuse "$1 is there already, and was left as it is"
	write_secrets "$1"
	say "passwords are in $1"
	exit
fi
if [[ $command != status ]]; then
	mkdir -p "$home"
	exec 9> "$home/lock"
	flock -w 300 9 || fail "another server.sh works on $home"
fi
"$command" "$@"
