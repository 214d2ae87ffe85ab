#!/bin/sh
# Programs as people have them, in a guest of Debian packages; ends once world.py holds connections with all of them.
set -e
cd /opt/programs
mkdir -p /run/postgresql /var/lib/postgresql/data /var/log/nginx /var/lib/nginx
chown postgres: /run/postgresql /var/lib/postgresql/data
bin=$(echo /usr/lib/postgresql/*/bin)
su postgres -c "$bin/initdb -A trust -D /var/lib/postgresql/data" >/var/log/initdb.log 2>&1
cat >/etc/nginx/nginx.conf <<'END'
events {}
http {
  keepalive_timeout 100000;
  server { listen 80; location / { return 200 '{"nginx":true}'; } }
}
END
echo '* * * * * root date >>/root/cron.log' >/etc/cron.d/tick
background() {
  name=$1
  shift
  setsid "$@" >"/var/log/$name.log" 2>&1 </dev/null &
}
background postgres su postgres -c "$bin/postgres -D /var/lib/postgresql/data -k /run/postgresql -c listen_addresses=127.0.0.1"
background redis redis-server --unixsocket /run/redis.sock --bind 0.0.0.0 --protected-mode no --dir /tmp
background nginx nginx -g 'daemon off;'
background node node server.cjs
background cron cron -f
[ ! -d jre ] || background java jre/bin/java -XX:+UseSerialGC -Xmx64m Server
# shellcheck disable=SC2016 # for the shell that it starts
tmux new-session -d -s t 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done'
until psql -h /run/postgresql -U postgres -c "select 1" && redis-cli ping && curl -sf localhost:80 && curl -sf localhost:8081; do sleep 1; done >/dev/null 2>&1
[ ! -d jre ] || until curl -sf localhost:8082 >/dev/null; do sleep 1; done
background world python3 world.py "$@"
until grep -q ready /var/log/world.log; do
  kill -0 $! || { cat /var/log/world.log; exit 1; }
  sleep 1
done
