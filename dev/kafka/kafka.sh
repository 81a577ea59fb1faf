#!/usr/bin/env bash
# Apache Kafka for tests, without Docker: as many brokers as wanted, from Maven's jars. Needs Java 17 and Maven.
#
#   kafka.sh start [BROKERS]   starts a cluster of so many brokers [1], and prints its address when it answers
#   kafka.sh stop              ends them, and deletes their data
#   kafka.sh kill NODE         kills one of them, as a crash does
#   kafka.sh revive NODE       starts it again on its data
#   kafka.sh leader TOPIC      prints the node that leads the topic's first partition
#   kafka.sh tool CLASS …      runs a program of Kafka
#
# KAFKA_HOME   where data and logs are [target/kafka of the workspace, which has the jars of all clusters]
# KAFKA_PORT   the first of four ports for each broker, all on 127.0.0.1 [29092]. Of node N, counted from 0, port + 4 N is
#              without security: its clients may do everything. The next one is the controller's. The one after it is SASL_SSL,
#              by the certificate of KAFKA_HOME/tls/ca.pem. Its user app (password app-secret, by PLAIN or SCRAM-SHA-512) may
#              do everything, and limited (limited-secret, by PLAIN) what ACLs permit. By OAUTHBEARER it takes unsigned tokens
# KAFKA_MORE   further lines of the brokers' configuration
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=${KAFKA_HOME:-$here/../../target/kafka}
first=${KAFKA_PORT:-29092}
mkdir -p "$home"
home=$(cd "$home" && pwd)
jars=$here/../../target/kafka/jars

fetch_jars() {
    [ -e "$jars/.complete" ] && return
    mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2
    touch "$jars/.complete"
}

java_with() { # HEAP CLASS …
    local heap=$1
    shift
    java "-Xmx$heap" -XX:+UseSerialGC -cp "$jars/*" "$@"
}

port() { echo $((first + 4 * $1)); }

make_certificates() {
    [ -e "$home/tls/broker.p12" ] && return
    mkdir -p "$home/tls"
    cd "$home/tls"
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj '/CN=test' -keyout ca.key -out ca.pem 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj '/CN=127.0.0.1' -keyout broker.key -out broker.csr 2>/dev/null
    printf 'subjectAltName=IP:127.0.0.1' >san
    openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -extfile san -out broker.pem 2>/dev/null
    openssl pkcs12 -export -in broker.pem -inkey broker.key -certfile ca.pem -passout pass:broker -out broker.p12
    cd - >/dev/null
}

configure() { # NODE BROKERS
    local node=$1 brokers=$2 plain controllers='' replicas=$2 n
    plain=$(port "$node")
    [ "$replicas" -le 3 ] || replicas=3
    for ((n = 0; n < brokers; n++)); do controllers+=${controllers:+,}127.0.0.1:$(($(port "$n") + 1)); done
    cat <<PROPERTIES
node.id=$node
process.roles=broker,controller
controller.quorum.bootstrap.servers=$controllers
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:$plain,CONTROLLER://127.0.0.1:$((plain + 1)),SASL_SSL://127.0.0.1:$((plain + 2))
advertised.listeners=PLAINTEXT://127.0.0.1:$plain,SASL_SSL://127.0.0.1:$((plain + 2))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs=$home/data/$node
default.replication.factor=$replicas
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=1
min.insync.replicas=$((replicas > 2 ? 2 : 1))
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:app
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_app="app-secret" user_limited="limited-secret";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms=3600000
ssl.keystore.type=PKCS12
ssl.keystore.location=$home/tls/broker.p12
ssl.keystore.password=broker
${KAFKA_MORE:-}
PROPERTIES
}

launch() { # NODE
    setsid java -Xmx400m -Xms200m -XX:+UseG1GC -cp "$jars/*" kafka.Kafka "$home/$1.properties" \
        >>"$home/$1.log" 2>&1 </dev/null &
    echo $! >"$home/$1.pid"
}

await() { # NODE
    for _ in $(seq 600); do
        kill -0 "$(cat "$home/$1.pid")" 2>/dev/null || { tail -20 "$home/$1.log" >&2; echo "broker $1 ended" >&2; exit 1; }
        if (exec 3<>"/dev/tcp/127.0.0.1/$(port "$1")") 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "broker $1 does not answer after a minute: see $home/$1.log" >&2
    exit 1
}

end() { # SIGNAL NODE
    local pid
    pid=$(cat "$home/$2.pid")
    kill "-$1" "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}

running() { find "$home" -maxdepth 1 -name '*.pid' -exec basename {} .pid \; | sort -n; }

case ${1:-} in
start)
    brokers=${2:-1}
    [ -z "$(running)" ] || { echo "a cluster runs already in $home" >&2; exit 1; }
    fetch_jars
    make_certificates
    rm -rf "$home/data"
    id=$(java_with 128m kafka.tools.StorageTool random-uuid 2>/dev/null)
    # The directory id of a controller is part of its voters' list.
    voters='' address=''
    for ((node = 0; node < brokers; node++)); do
        configure "$node" "$brokers" >"$home/$node.properties"
        directory=$(java_with 128m kafka.tools.StorageTool random-uuid 2>/dev/null)
        voters+=${voters:+,}$node@127.0.0.1:$(($(port "$node") + 1)):$directory
        address+=${address:+,}127.0.0.1:$(port "$node")
    done
    for ((node = 0; node < brokers; node++)); do
        java_with 256m kafka.tools.StorageTool format --cluster-id "$id" --config "$home/$node.properties" \
            --initial-controllers "$voters" --add-scram 'SCRAM-SHA-512=[name=app,password=app-secret]' >/dev/null 2>"$home/format.log" \
            || { cat "$home/format.log" >&2; exit 1; }
        : >"$home/$node.log"
        launch "$node"
    done
    for ((node = 0; node < brokers; node++)); do await "$node"; done
    echo "$address"
    ;;
stop)
    for node in $(running); do
        end KILL "$node"
        rm "$home/$node.pid"
    done
    rm -rf "$home/data"
    ;;
kill) end KILL "$2" ;;
revive)
    launch "$2"
    await "$2"
    ;;
leader)
    node=$(running | head -1)
    address=''
    for node in $(running); do address+=${address:+,}127.0.0.1:$(port "$node"); done
    java_with 128m org.apache.kafka.tools.TopicCommand --bootstrap-server "$address" --describe --topic "$2" 2>/dev/null \
        | sed -n 's/.*Partition: 0.*Leader: \([0-9]*\).*/\1/p'
    ;;
tool)
    shift
    fetch_jars
    java_with 256m "$@"
    ;;
*)
    sed -n '2,/^set/s/^# \?//p' "$0" | sed '$d' >&2
    exit 2
    ;;
esac
