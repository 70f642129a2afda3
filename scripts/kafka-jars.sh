#!/usr/bin/env bash
# Takes Apache Kafka's own jars from Maven Central, once per machine, and prints the folder, shaped as a KAFKA_PATH:
#
#   FOLDER/libs/*.jar    broker, clients, tools and (3.9 only) ZooKeeper
#   FOLDER/bin/*.sh      Kafka's command line tools; each only names its class
#   FOLDER/config        logging that stays quiet
#
# The comparisons of `make compat`, `make clients` and `make bench` need it; klamm itself does not.
#
# Usage: scripts/kafka-jars.sh VERSION        for example 3.9.1 or 4.1.0
set -euo pipefail
version=${1:?usage: scripts/kafka-jars.sh VERSION}
cache=${KLAMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/klamm}
home=$cache/kafka-$version
say() { printf '%s\n' "$*" >&2; }

if [ -f "$home/.complete" ]; then
  echo "$home"
  exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/.kafka-$version.lock"
flock 9
if [ -f "$home/.complete" ]; then
  echo "$home"
  exit 0
fi
command -v mvn >/dev/null || {
  say "kafka-jars: Maven is missing (scripts/setup.sh compat installs it)"
  exit 1
}

dependency() { printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>' "$@"; }
rm -rf "$home"
mkdir -p "$home/libs" "$home/bin" "$home/config"
{
  printf '<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version>'
  printf '<dependencies>'
  for artifact in kafka_2.13 kafka-tools kafka-streams connect-runtime connect-json connect-file connect-transforms \
    connect-mirror connect-mirror-client connect-basic-auth-extension; do
    dependency org.apache.kafka "$artifact" "$version"
  done
  case $version in
    3.*)
      dependency ch.qos.reload4j reload4j 1.2.25
      dependency org.slf4j slf4j-reload4j 1.7.36
      ;;
    *)
      dependency org.apache.logging.log4j log4j-slf4j-impl 2.24.3
      dependency org.apache.logging.log4j log4j-core 2.24.3
      ;;
  esac
  printf '</dependencies></project>\n'
} >"$home/pom.xml"
say "Apache Kafka $version: taking its jars from Maven Central (about 120 MB, once per machine)"
(cd "$home" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/libs") 1>&2

cat >"$home/config/log4j.properties" <<'END'
log4j.rootLogger=${kafka.root.level}, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.Target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %m (%c)%n
END
cat >"$home/config/log4j2.properties" <<'END'
appenders=out
appender.out.type=Console
appender.out.name=out
appender.out.target=SYSTEM_ERR
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=${sys:kafka.root.level}
rootLogger.appenderRefs=out
rootLogger.appenderRef.out.ref=out
END
cat >"$home/bin/kafka-run-class.sh" <<'END'
#!/usr/bin/env bash
# kafka-run-class.sh CLASS ARGUMENTS: runs a class of these jars; CLASSPATH is searched as well, KAFKA_OPTS is passed on.
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec java ${KAFKA_HEAP_OPTS:--Xmx256M} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true \
  -Dkafka.root.level="${KAFKA_LOG_LEVEL:-WARN}" -Dlog4j.configuration="file:$home/config/log4j.properties" \
  -Dlog4j2.configurationFile="file:$home/config/log4j2.properties" \
  ${KAFKA_OPTS:-} -cp "$home/libs/*${CLASSPATH:+:$CLASSPATH}" "$@"
END
tool() {
  printf '#!/usr/bin/env bash\nexec "$(dirname "${BASH_SOURCE[0]}")/kafka-run-class.sh" %s "$@"\n' "$2" >"$home/bin/$1.sh"
}
tool kafka-acls kafka.admin.AclCommand
case $version in
  3.*) tool kafka-broker-api-versions kafka.admin.BrokerApiVersionsCommand ;;
  *) tool kafka-broker-api-versions org.apache.kafka.tools.BrokerApiVersionsCommand ;;
esac
tool kafka-cluster org.apache.kafka.tools.ClusterTool
tool kafka-configs kafka.admin.ConfigCommand
tool kafka-console-consumer org.apache.kafka.tools.consumer.ConsoleConsumer
case $version in
  3.*) tool kafka-console-producer kafka.tools.ConsoleProducer ;;
  *) tool kafka-console-producer org.apache.kafka.tools.ConsoleProducer ;;
esac
tool kafka-consumer-groups org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
tool kafka-consumer-perf-test org.apache.kafka.tools.ConsumerPerformance
tool kafka-delete-records org.apache.kafka.tools.DeleteRecordsCommand
tool kafka-dump-log kafka.tools.DumpLogSegments
tool kafka-e2e-latency org.apache.kafka.tools.EndToEndLatency
tool kafka-features org.apache.kafka.tools.FeatureCommand
tool kafka-get-offsets org.apache.kafka.tools.GetOffsetShell
tool kafka-leader-election org.apache.kafka.tools.LeaderElectionCommand
tool kafka-log-dirs org.apache.kafka.tools.LogDirsCommand
tool kafka-metadata-quorum org.apache.kafka.tools.MetadataQuorumCommand
tool kafka-producer-perf-test org.apache.kafka.tools.ProducerPerformance
tool kafka-reassign-partitions org.apache.kafka.tools.reassign.ReassignPartitionsCommand
tool kafka-replica-verification org.apache.kafka.tools.ReplicaVerificationTool
tool kafka-server-start kafka.Kafka
tool kafka-storage kafka.tools.StorageTool
tool kafka-streams-application-reset org.apache.kafka.tools.StreamsResetter
tool kafka-topics org.apache.kafka.tools.TopicCommand
tool kafka-transactions org.apache.kafka.tools.TransactionsCommand
tool kafka-verifiable-consumer org.apache.kafka.tools.VerifiableConsumer
tool kafka-verifiable-producer org.apache.kafka.tools.VerifiableProducer
tool zookeeper-server-start org.apache.zookeeper.server.quorum.QuorumPeerMain
tool zookeeper-shell org.apache.zookeeper.ZooKeeperMainWithTlsSupportForKafka
chmod +x "$home"/bin/*.sh
touch "$home/.complete"
echo "$home"
