import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Calls every method of Admin with good, empty, unknown, doubled and forbidden arguments, and prints one line for each
 * call: its label, then what it answered or the error. What differs from run to run (addresses, ids, times) is masked,
 * so that the lines of two brokers can be compared.
 */
public class Sweep {
    static Admin admin;
    static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        Properties props = new Properties();
        props.put("bootstrap.servers", bootstrap);
        props.put("request.timeout.ms", "8000");
        props.put("default.api.timeout.ms", "8000");
        admin = Admin.create(props);
        topics();
        records();
        configs();
        groups();
        transactions();
        cluster();
        security();
        partitions();
        newer();
        deletions();
        System.exit(0);
    }

    /** What only newer clients can ask. */
    static void newer() throws Exception {
        try {
            Class.forName("Sweep41").getMethod("calls").invoke(null);
        } catch (ClassNotFoundException e) {
            System.err.println("an older client");
        }
    }

    // ---- printing

    static void call(String label, Callable<Object> work) {
        String line;
        try {
            line = "OK " + show(work.call());
        } catch (ExecutionException e) {
            line = error(e.getCause());
        } catch (Throwable e) {
            line = error(e);
        }
        System.out.println(label + " => " + mask(line));
        System.out.flush();
    }

    static String error(Throwable e) {
        // How a time-out came about depends on when.
        if (e instanceof org.apache.kafka.common.errors.TimeoutException) return "TimeoutException";
        return e.getClass().getSimpleName() + ": " + String.valueOf(e.getMessage()).replace('\n', ' ');
    }

    static String ownName = "no name yet";

    static String mask(String line) {
        return line.replace(ownName, "LOGGER").replaceAll("(localhost|127\\.0\\.0\\.1):\\d+", "HOST:PORT")
            .replaceAll("host = (localhost|127\\.0\\.0\\.1), port = \\d+", "host = HOST, port = PORT")
            .replaceAll("(tries=|after )\\d+", "$1N")
            .replaceAll("\\b1[6-9]\\d{11}\\b", "TIME")
            .replaceAll("/tmp/[^,}\\]\\s]+", "DIR");
    }

    @SuppressWarnings("unchecked")
    static String show(Object o) throws Exception {
        if (o == null) return "null";
        if (o instanceof KafkaFuture) return each((KafkaFuture<Object>) o);
        if (o instanceof Map) {
            TreeMap<String, String> sorted = new TreeMap<>();
            for (Map.Entry<Object, Object> e : ((Map<Object, Object>) o).entrySet()) {
                sorted.put(show(e.getKey()), show(e.getValue()));
            }
            return sorted.toString();
        }
        if (o instanceof List) {
            List<String> shown = new ArrayList<>();
            for (Object one : (List<Object>) o) shown.add(show(one));
            return shown.toString();
        }
        if (o instanceof Collection) {
            TreeSet<String> sorted = new TreeSet<>();
            for (Object one : (Collection<Object>) o) sorted.add(show(one));
            return sorted.toString();
        }
        if (o instanceof DeletedRecords) return "low watermark " + ((DeletedRecords) o).lowWatermark();
        if (o instanceof ClientQuotaEntity) return "entity " + show(((ClientQuotaEntity) o).entries());
        if (o instanceof TopicDescription) {
            TopicDescription t = (TopicDescription) o;
            List<String> parts = new ArrayList<>();
            for (TopicPartitionInfo p : t.partitions()) {
                parts.add(p.partition() + " leader " + p.leader() + " replicas " + p.replicas() + " isr " + p.isr());
            }
            return t.name() + " " + t.isInternal() + " " + parts + " " + show(t.authorizedOperations());
        }
        if (o instanceof Optional) return ((Optional<Object>) o).isPresent() ? show(((Optional<Object>) o).get()) : "none";
        if (o instanceof Config) {
            Map<String, String> entries = new TreeMap<>();
            for (ConfigEntry e : ((Config) o).entries()) {
                entries.put(e.name(), e.value() + "/" + e.source() + (e.isReadOnly() ? "/ro" : "") + (e.isSensitive() ? "/secret" : "")
                    + "/" + e.type() + "/" + show(e.synonyms().stream().map(s -> s.name() + "=" + s.value() + "@" + s.source()).collect(Collectors.toList()))
                    + (e.documentation() == null ? "" : "/doc"));
            }
            return entries.toString();
        }
        return o.toString();
    }

    static String each(KafkaFuture<Object> future) throws Exception {
        try {
            return show(future.get(20, TimeUnit.SECONDS));
        } catch (ExecutionException e) {
            return error(e.getCause());
        }
    }

    static <K> Map<String, String> all(Map<K, ? extends KafkaFuture<?>> futures) throws Exception {
        Map<String, String> shown = new TreeMap<>();
        for (Map.Entry<K, ? extends KafkaFuture<?>> e : futures.entrySet()) {
            @SuppressWarnings("unchecked")
            KafkaFuture<Object> future = (KafkaFuture<Object>) e.getValue();
            shown.put(show(e.getKey()), each(future));
        }
        return shown;
    }

    static TopicPartition tp(String topic, int partition) {
        return new TopicPartition(topic, partition);
    }

    // ---- topics

    static Object create(NewTopic... topics) throws Exception {
        CreateTopicsResult result = admin.createTopics(Arrays.asList(topics));
        Map<String, String> shown = new TreeMap<>();
        for (String name : result.values().keySet()) {
            String made = each((KafkaFuture<Object>) (KafkaFuture<?>) result.values().get(name));
            if (made.equals("null")) {
                made = result.numPartitions(name).get() + "x" + result.replicationFactor(name).get() + " " + result.config(name).get().entries().size();
            }
            shown.put(name, made);
        }
        return shown;
    }

    static void topics() {
        call("createTopics good", () -> create(new NewTopic("sweep", 3, (short) 1)));
        call("createTopics compact", () -> create(new NewTopic("sweep-compact", 1, (short) 1).configs(Map.of("cleanup.policy", "compact"))));
        call("createTopics defaults", () -> create(new NewTopic("sweep-defaults", Optional.empty(), Optional.empty())));
        call("createTopics again", () -> create(new NewTopic("sweep", 3, (short) 1)));
        call("createTopics none", () -> create());
        call("createTopics bad name", () -> create(new NewTopic("a/b", 1, (short) 1)));
        call("createTopics dot", () -> create(new NewTopic(".", 1, (short) 1)));
        call("createTopics empty name", () -> create(new NewTopic("", 1, (short) 1)));
        call("createTopics long name", () -> create(new NewTopic("x".repeat(250), 1, (short) 1)));
        call("createTopics collision", () -> create(new NewTopic("sweep.defaults", 1, (short) 1)));
        call("createTopics factor 2", () -> create(new NewTopic("sweep-two", 1, (short) 2)));
        call("createTopics factor 0", () -> create(new NewTopic("sweep-zero", 1, (short) 0)));
        call("createTopics partitions 0", () -> create(new NewTopic("sweep-none", 0, (short) 1)));
        call("createTopics unknown config", () -> create(new NewTopic("sweep-config", 1, (short) 1).configs(Map.of("no.such", "1"))));
        call("createTopics bad config", () -> create(new NewTopic("sweep-config", 1, (short) 1).configs(Map.of("retention.ms", "soon"))));
        call("createTopics bad policy", () -> create(new NewTopic("sweep-config", 1, (short) 1).configs(Map.of("cleanup.policy", "forget"))));
        call("createTopics low config", () -> create(new NewTopic("sweep-config", 1, (short) 1).configs(Map.of("segment.bytes", "1"))));
        call("createTopics assignment", () -> create(new NewTopic("sweep-assigned", Map.of(0, List.of(broker()), 1, List.of(broker())))));
        call("createTopics assignment unknown broker", () -> create(new NewTopic("sweep-elsewhere", Map.of(0, List.of(77)))));
        call("createTopics assignment gap", () -> create(new NewTopic("sweep-gap", Map.of(0, List.of(broker()), 2, List.of(broker())))));
        call("createTopics assignment doubled", () -> create(new NewTopic("sweep-twice", Map.of(0, List.of(broker(), broker())))));
        call("createTopics assignment empty", () -> create(new NewTopic("sweep-empty", Map.of(0, List.of()))));
        call("createTopics validate", () -> all(admin.createTopics(List.of(new NewTopic("sweep-check", 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).values()));
        call("createTopics validate existing", () -> all(admin.createTopics(List.of(new NewTopic("sweep", 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).values()));
        call("listTopics", () -> admin.listTopics().names().get());
        call("listTopics internal", () -> admin.listTopics(new ListTopicsOptions().listInternal(true)).listings().get().stream().map(t -> t.name() + t.isInternal()).collect(Collectors.toList()).contains("sweepfalse"));
        call("describeTopics", () -> all(admin.describeTopics(List.of("sweep", "no-such")).topicNameValues()));
        call("describeTopics operations", () -> all(admin.describeTopics(List.of("sweep"), new DescribeTopicsOptions().includeAuthorizedOperations(true)).topicNameValues()));
        call("describeTopics unknown id", () -> all(admin.describeTopics(TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).topicIdValues()));
        call("describeTopics bad name", () -> all(admin.describeTopics(List.of("a/b", "")).topicNameValues()));
    }

    static int broker() throws Exception {
        return admin.describeCluster().nodes().get().iterator().next().id();
    }

    // ---- records and offsets

    static void records() {
        Properties props = new Properties();
        props.put("bootstrap.servers", bootstrap);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(props, new StringSerializer(), new StringSerializer())) {
            for (int n = 0; n < 30; n++) {
                producer.send(new ProducerRecord<>("sweep", n % 3, 1700000000000L + n, "k" + n, "v" + n));
            }
        }
        call("listOffsets", () -> {
            Map<String, String> shown = new TreeMap<>();
            Map<String, OffsetSpec> specs = new LinkedHashMap<>();
            specs.put("earliest", OffsetSpec.earliest());
            specs.put("latest", OffsetSpec.latest());
            specs.put("max", OffsetSpec.maxTimestamp());
            specs.put("local", OffsetSpec.earliestLocal());
            specs.put("tiered", OffsetSpec.latestTiered());
            specs.put("time", OffsetSpec.forTimestamp(1700000000010L));
            specs.put("future", OffsetSpec.forTimestamp(1900000000000L));
            specs.put("negative", OffsetSpec.forTimestamp(-77));
            for (Map.Entry<String, OffsetSpec> one : specs.entrySet()) {
                String answer;
                try {
                    answer = show(admin.listOffsets(Map.of(tp("sweep", 0), one.getValue())).all().get(20, TimeUnit.SECONDS));
                } catch (ExecutionException e) {
                    answer = error(e.getCause());
                }
                shown.put(one.getKey(), answer);
            }
            return shown;
        });
        call("listOffsets unknown", () -> admin.listOffsets(Map.of(tp("no-such", 0), OffsetSpec.latest()), new ListOffsetsOptions().timeoutMs(3000)).partitionResult(tp("no-such", 0)).get());
        call("deleteRecords", () -> all(admin.deleteRecords(Map.of(tp("sweep", 0), RecordsToDelete.beforeOffset(3))).lowWatermarks()));
        call("deleteRecords end", () -> all(admin.deleteRecords(Map.of(tp("sweep", 1), RecordsToDelete.beforeOffset(-1))).lowWatermarks()));
        call("deleteRecords beyond", () -> all(admin.deleteRecords(Map.of(tp("sweep", 0), RecordsToDelete.beforeOffset(999))).lowWatermarks()));
        call("deleteRecords negative", () -> all(admin.deleteRecords(Map.of(tp("sweep", 0), RecordsToDelete.beforeOffset(-7))).lowWatermarks()));
        call("deleteRecords compacted", () -> all(admin.deleteRecords(Map.of(tp("sweep-compact", 0), RecordsToDelete.beforeOffset(0))).lowWatermarks()));
        call("deleteRecords unknown", () -> all(admin.deleteRecords(Map.of(tp("no-such", 0), RecordsToDelete.beforeOffset(0)), new DeleteRecordsOptions().timeoutMs(3000)).lowWatermarks()));
        call("createPartitions", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(4))).values()));
        call("createPartitions same", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(4))).values()));
        call("createPartitions fewer", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(2))).values()));
        call("createPartitions negative", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(-2))).values()));
        call("createPartitions unknown", () -> all(admin.createPartitions(Map.of("no-such", NewPartitions.increaseTo(2))).values()));
        call("createPartitions assigned", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(5, List.of(List.of(broker()))))).values()));
        call("createPartitions assigned too many", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(6, List.of(List.of(broker()), List.of(broker()))))).values()));
        call("createPartitions assigned unknown broker", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(6, List.of(List.of(77))))).values()));
        call("createPartitions validate", () -> all(admin.createPartitions(Map.of("sweep-defaults", NewPartitions.increaseTo(9)), new CreatePartitionsOptions().validateOnly(true)).values()));
        call("describeProducers", () -> {
            DescribeProducersResult.PartitionProducerState state = admin.describeProducers(List.of(tp("sweep", 0))).partitionResult(tp("sweep", 0)).get();
            return state.activeProducers().size() + " " + state.activeProducers().iterator().next().lastSequence();
        });
        call("describeProducers unknown", () -> admin.describeProducers(List.of(tp("no-such", 0)), new DescribeProducersOptions().timeoutMs(3000)).partitionResult(tp("no-such", 0)).get());
    }

    // ---- configs

    static ConfigResource topic(String name) {
        return new ConfigResource(ConfigResource.Type.TOPIC, name);
    }

    static ConfigResource resource(ConfigResource.Type type, String name) {
        return new ConfigResource(type, name);
    }

    static Object alter(ConfigResource resource, Object... ops) throws Exception {
        List<AlterConfigOp> list = new ArrayList<>();
        for (int i = 0; i < ops.length; i += 3) {
            list.add(new AlterConfigOp(new ConfigEntry((String) ops[i], (String) ops[i + 1]), (AlterConfigOp.OpType) ops[i + 2]));
        }
        return all(admin.incrementalAlterConfigs(Map.of(resource, list)).values());
    }

    static Object own(ConfigResource resource) throws Exception {
        Config config = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true)).all().get().get(resource);
        Map<String, String> own = new TreeMap<>();
        for (ConfigEntry e : config.entries()) {
            if (e.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG || e.source() == ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG
                || e.source() == ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG || e.source() == ConfigEntry.ConfigSource.DYNAMIC_BROKER_LOGGER_CONFIG) {
                own.put(e.name(), e.value() + "@" + e.source() + show(e.synonyms().stream().map(s -> s.name() + "=" + s.value()).collect(Collectors.toList())));
            }
        }
        return own;
    }

    static final AlterConfigOp.OpType SET = AlterConfigOp.OpType.SET, DELETE = AlterConfigOp.OpType.DELETE,
        APPEND = AlterConfigOp.OpType.APPEND, SUBTRACT = AlterConfigOp.OpType.SUBTRACT;

    static void configs() throws Exception {
        ConfigResource.Type broker = ConfigResource.Type.BROKER, logger = ConfigResource.Type.BROKER_LOGGER;
        String id = String.valueOf(broker());
        // Each broker has loggers of its own.
        String logger1 = admin.describeConfigs(List.of(resource(logger, id))).all().get().get(resource(logger, id)).entries().stream()
            .map(ConfigEntry::name).filter(n -> n.startsWith("kafka.")).sorted().findFirst().get();
        ownName = logger1;
        call("describeConfigs topic", () -> all(admin.describeConfigs(List.of(topic("sweep")), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).values()));
        call("describeConfigs topics", () -> all(admin.describeConfigs(List.of(topic("no-such"), topic("a/b"), topic(""))).values()));
        call("describeConfigs brokers", () -> all(admin.describeConfigs(List.of(resource(broker, "77"))).values()));
        call("describeConfigs broker text", () -> all(admin.describeConfigs(List.of(resource(broker, "abc"))).values()));
        call("describeConfigs broker default", () -> all(admin.describeConfigs(List.of(resource(broker, ""))).values()));
        call("describeConfigs logger", () -> admin.describeConfigs(List.of(resource(logger, id))).all().get().get(resource(logger, id)).get("root").source());
        call("describeConfigs logger other", () -> all(admin.describeConfigs(List.of(resource(logger, "77"))).values()));
        call("describeConfigs logger none", () -> all(admin.describeConfigs(List.of(resource(logger, ""))).values()));
        call("describeConfigs metrics", () -> all(admin.describeConfigs(List.of(resource(ConfigResource.Type.CLIENT_METRICS, "m"))).values()));
        call("describeConfigs metrics none", () -> all(admin.describeConfigs(List.of(resource(ConfigResource.Type.CLIENT_METRICS, ""))).values()));
        call("describeConfigs unknown", () -> all(admin.describeConfigs(List.of(resource(ConfigResource.Type.UNKNOWN, "x"))).values()));
        call("alter topic set", () -> alter(topic("sweep"), "retention.ms", "1000000", SET, "cleanup.policy", "compact,delete", SET));
        call("alter topic append", () -> alter(topic("sweep"), "cleanup.policy", "delete", APPEND));
        call("alter topic subtract", () -> alter(topic("sweep"), "cleanup.policy", "compact", SUBTRACT));
        call("topic own", () -> own(topic("sweep")));
        call("alter topic append not list", () -> alter(topic("sweep"), "retention.ms", "5", APPEND));
        call("alter topic unknown set", () -> alter(topic("sweep"), "no.such", "5", SET));
        call("alter topic unknown delete", () -> alter(topic("sweep"), "no.such", null, DELETE));
        call("alter topic unknown append", () -> alter(topic("sweep"), "no.such", "a", APPEND));
        call("alter topic null value", () -> alter(topic("sweep"), "retention.ms", null, SET));
        call("alter topic bad value", () -> alter(topic("sweep"), "retention.ms", "soon", SET));
        call("alter topic low value", () -> alter(topic("sweep"), "segment.bytes", "1", SET));
        call("alter topic doubled", () -> alter(topic("sweep"), "retention.ms", "5", SET, "retention.ms", "6", SET));
        call("alter topic throttled", () -> alter(topic("sweep"), "leader.replication.throttled.replicas", "0:0,1:0", SET));
        call("alter topic throttled bad", () -> alter(topic("sweep"), "leader.replication.throttled.replicas", "zero", SET));
        call("alter topic nothing", () -> alter(topic("sweep")));
        call("alter unknown topic", () -> alter(topic("no-such"), "retention.ms", "5", SET));
        call("alter empty topic", () -> alter(topic(""), "retention.ms", "5", SET));
        call("alter validate", () -> all(admin.incrementalAlterConfigs(Map.of(topic("sweep"), List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "7"), SET))), new AlterConfigsOptions().validateOnly(true)).values()));
        call("topic own after", () -> own(topic("sweep")));
        call("alter topic delete", () -> alter(topic("sweep"), "retention.ms", null, DELETE, "cleanup.policy", null, DELETE, "leader.replication.throttled.replicas", null, DELETE));
        call("topic own at the end", () -> own(topic("sweep")));
        call("alter broker", () -> alter(resource(broker, id), "log.cleaner.threads", "2", SET));
        call("alter broker rate", () -> alter(resource(broker, id), "leader.replication.throttled.rate", "1000000", SET, "follower.replication.throttled.rate", "1000000", SET));
        call("alter broker rate text", () -> alter(resource(broker, id), "leader.replication.throttled.rate", "abc", SET));
        call("alter broker rate negative", () -> alter(resource(broker, id), "leader.replication.throttled.rate", "-5", SET));
        call("alter broker io rate", () -> alter(resource(broker, id), "replica.alter.log.dirs.io.max.bytes.per.second", "0", SET));
        call("alter broker read-only", () -> alter(resource(broker, id), "broker.id", "9", SET));
        call("alter broker read-only 2", () -> alter(resource(broker, id), "num.partitions", "9", SET));
        call("alter broker unknown", () -> alter(resource(broker, id), "no.such", "9", SET));
        call("alter broker unknown delete", () -> alter(resource(broker, id), "no.such", null, DELETE));
        call("alter broker bad", () -> alter(resource(broker, id), "log.cleaner.threads", "many", SET));
        call("alter broker threads too many", () -> alter(resource(broker, id), "num.io.threads", "999", SET));
        call("alter broker other", () -> alter(resource(broker, "77"), "log.cleaner.threads", "2", SET));
        call("alter broker text", () -> alter(resource(broker, "abc"), "log.cleaner.threads", "2", SET));
        call("alter broker default", () -> alter(resource(broker, ""), "log.retention.ms", "100000000", SET));
        call("alter broker default one's own", () -> alter(resource(broker, ""), "listener.name.x.ssl.keystore.location", "/x", SET));
        Thread.sleep(500);
        call("broker own", () -> own(resource(broker, id)));
        call("broker default own", () -> own(resource(broker, "")));
        call("alter broker delete", () -> alter(resource(broker, id), "log.cleaner.threads", null, DELETE, "leader.replication.throttled.rate", null, DELETE,
            "follower.replication.throttled.rate", null, DELETE, "replica.alter.log.dirs.io.max.bytes.per.second", null, DELETE));
        call("alter broker default delete", () -> alter(resource(broker, ""), "log.retention.ms", null, DELETE));
        call("alter logger", () -> alter(resource(logger, id), logger1, "DEBUG", SET));
        call("alter logger level", () -> alter(resource(logger, id), logger1, "LOUD", SET));
        call("alter logger unknown", () -> alter(resource(logger, id), "no.such.logger", "DEBUG", SET));
        call("alter logger append", () -> alter(resource(logger, id), logger1, "DEBUG", APPEND));
        call("alter logger root delete", () -> alter(resource(logger, id), "root", null, DELETE));
        call("alter logger delete", () -> alter(resource(logger, id), logger1, null, DELETE));
        call("alter logger other", () -> alter(resource(logger, "77"), "root", "INFO", SET));
        call("alter logger none", () -> alter(resource(logger, ""), "root", "INFO", SET));
        call("alter metrics", () -> alter(resource(ConfigResource.Type.CLIENT_METRICS, "m"), "interval.ms", "1000", SET));
        call("alter unknown", () -> alter(resource(ConfigResource.Type.UNKNOWN, "x"), "a", "b", SET));
        call("listClientMetricsResources", () -> admin.listClientMetricsResources().all().get());
    }

    // ---- groups

    static void groups() throws Exception {
        Properties props = new Properties();
        props.put("bootstrap.servers", bootstrap);
        props.put(ConsumerConfig.GROUP_ID_CONFIG, "sweep-live");
        props.put(ConsumerConfig.CLIENT_ID_CONFIG, "sweep-client");
        props.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        KafkaConsumer<String, String> live = new KafkaConsumer<>(props, new StringDeserializer(), new StringDeserializer());
        live.subscribe(List.of("sweep"));
        for (int n = 0; n < 40 && live.assignment().isEmpty(); n++) live.poll(java.time.Duration.ofMillis(250));
        live.commitSync();
        call("alterConsumerGroupOffsets", () -> admin.alterConsumerGroupOffsets("sweep-old", Map.of(tp("sweep", 0), new OffsetAndMetadata(4, Optional.of(0), "m"), tp("sweep", 1), new OffsetAndMetadata(5))).all().get());
        call("alterConsumerGroupOffsets unknown topic", () -> admin.alterConsumerGroupOffsets("sweep-old", Map.of(tp("no-such", 0), new OffsetAndMetadata(4))).all().get());
        call("alterConsumerGroupOffsets live", () -> admin.alterConsumerGroupOffsets("sweep-live", Map.of(tp("sweep", 0), new OffsetAndMetadata(4))).all().get());
        call("alterConsumerGroupOffsets empty id", () -> admin.alterConsumerGroupOffsets("", Map.of(tp("sweep", 0), new OffsetAndMetadata(4))).all().get());
        call("listConsumerGroups", () -> admin.listConsumerGroups().all().get().stream().map(ConsumerGroupListing::groupId).filter(g -> g.startsWith("sweep")).collect(Collectors.toSet()));
        call("listConsumerGroups stable", () -> admin.listConsumerGroups(new ListConsumerGroupsOptions().inStates(Set.of(ConsumerGroupState.STABLE))).all().get());
        call("listConsumerGroups classic", () -> admin.listConsumerGroups(new ListConsumerGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))).all().get());
        call("describeConsumerGroups", () -> all(admin.describeConsumerGroups(List.of("sweep-old", "no-such", "")).describedGroups()));
        call("describeConsumerGroups live", () -> {
            ConsumerGroupDescription d = admin.describeConsumerGroups(List.of("sweep-live"), new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true)).all().get().get("sweep-live");
            return d.state() + " " + d.partitionAssignor() + " " + d.members().size() + " " + d.members().iterator().next().host() + " " + show(d.members().iterator().next().assignment().topicPartitions()) + " " + show(d.authorizedOperations());
        });
        call("listConsumerGroupOffsets", () -> admin.listConsumerGroupOffsets("sweep-old").partitionsToOffsetAndMetadata().get());
        call("listConsumerGroupOffsets unknown", () -> admin.listConsumerGroupOffsets("no-such").partitionsToOffsetAndMetadata().get());
        call("listConsumerGroupOffsets empty id", () -> admin.listConsumerGroupOffsets("").partitionsToOffsetAndMetadata().get());
        call("deleteConsumerGroupOffsets", () -> { DeleteConsumerGroupOffsetsResult r = admin.deleteConsumerGroupOffsets("sweep-old", Set.of(tp("sweep", 0), tp("no-such", 0), tp("sweep", 2)));
            return each((KafkaFuture<Object>) (KafkaFuture<?>) r.partitionResult(tp("sweep", 0))) + each((KafkaFuture<Object>) (KafkaFuture<?>) r.partitionResult(tp("no-such", 0))) + each((KafkaFuture<Object>) (KafkaFuture<?>) r.partitionResult(tp("sweep", 2))); });
        call("deleteConsumerGroupOffsets live", () -> admin.deleteConsumerGroupOffsets("sweep-live", Set.of(tp("sweep", 0))).all().get());
        call("deleteConsumerGroupOffsets live, other topic", () -> admin.deleteConsumerGroupOffsets("sweep-live", Set.of(tp("sweep-defaults", 0))).all().get());
        call("deleteConsumerGroupOffsets unknown", () -> admin.deleteConsumerGroupOffsets("no-such", Set.of(tp("sweep", 0))).all().get());
        call("deleteConsumerGroupOffsets empty id", () -> admin.deleteConsumerGroupOffsets("", Set.of(tp("sweep", 0))).all().get());
        call("deleteConsumerGroupOffsets nothing", () -> admin.deleteConsumerGroupOffsets("sweep-old", Set.of()).all().get());
        call("listConsumerGroupOffsets after", () -> admin.listConsumerGroupOffsets("sweep-old").partitionsToOffsetAndMetadata().get());
        call("removeMembers unknown", () -> admin.removeMembersFromConsumerGroup("sweep-live", new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("who")))).all().get());
        call("removeMembers all of none", () -> admin.removeMembersFromConsumerGroup("sweep-old", new RemoveMembersFromConsumerGroupOptions()).all().get());
        call("deleteConsumerGroups", () -> all(admin.deleteConsumerGroups(List.of("sweep-live", "no-such", "sweep-old", "")).deletedGroups()));
        live.close();
        call("deleteConsumerGroups left", () -> all(admin.deleteConsumerGroups(List.of("sweep-live")).deletedGroups()));
    }

    // ---- transactions

    static void transactions() throws Exception {
        Properties props = new Properties();
        props.put("bootstrap.servers", bootstrap);
        props.put("transactional.id", "sweep-txn");
        KafkaProducer<String, String> producer = new KafkaProducer<>(props, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        producer.beginTransaction();
        producer.send(new ProducerRecord<>("sweep", 2, "k", "v")).get();
        call("listTransactions", () -> admin.listTransactions().all().get().stream().map(t -> t.transactionalId() + t.state()).collect(Collectors.toList()));
        call("listTransactions state", () -> admin.listTransactions(new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING))).all().get().size());
        call("describeTransactions", () -> { TransactionDescription d = admin.describeTransactions(List.of("sweep-txn")).all().get().get("sweep-txn"); return d.state() + " " + d.topicPartitions() + d.transactionTimeoutMs(); });
        call("describeTransactions unknown", () -> admin.describeTransactions(List.of("no-such")).all().get());
        call("fenceProducers", () -> all(admin.fenceProducers(List.of("sweep-txn")).fencedProducers()));
        call("a fenced producer", () -> { producer.commitTransaction(); return "committed"; });
        call("fenceProducers unknown", () -> all(admin.fenceProducers(List.of("sweep-new")).fencedProducers()));
        call("abortTransaction wrong", () -> admin.abortTransaction(new AbortTransactionSpec(tp("sweep", 2), 99, (short) 0, 0)).all().get());
        call("abortTransaction unknown", () -> admin.abortTransaction(new AbortTransactionSpec(tp("no-such", 2), 99, (short) 0, 0), new AbortTransactionOptions().timeoutMs(3000)).all().get());
        try { producer.close(java.time.Duration.ofMillis(100)); } catch (Exception e) { /* It is fenced. */ }
    }

    // ---- the cluster

    static void cluster() throws Exception {
        int id = broker();
        call("describeCluster", () -> { DescribeClusterResult r = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true)); return show(r.nodes().get()) + r.controller().get() + show(r.authorizedOperations().get()); });
        call("describeFeatures", () -> { FeatureMetadata f = admin.describeFeatures().featureMetadata().get(); return f.finalizedFeatures() + " " + f.finalizedFeaturesEpoch() + " " + f.supportedFeatures(); });
        call("updateFeatures none", () -> admin.updateFeatures(Map.of(), new UpdateFeaturesOptions()).all().get());
        call("updateFeatures", () -> all(admin.updateFeatures(Map.of("metadata.version", new FeatureUpdate((short) 7, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions()).values()));
        call("updateFeatures unknown", () -> all(admin.updateFeatures(Map.of("no.such", new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions()).values()));
        call("describeMetadataQuorum", () -> admin.describeMetadataQuorum().quorumInfo().get());
        call("unregisterBroker", () -> admin.unregisterBroker(77).all().get());
        call("addRaftVoter", () -> admin.addRaftVoter(1, new Uuid(1, 2), Set.of(new RaftVoterEndpoint("A", "h", 1))).all().get());
        call("removeRaftVoter", () -> admin.removeRaftVoter(1, new Uuid(1, 2)).all().get());
        call("describeLogDirs", () -> { Map<String, LogDirDescription> of = admin.describeLogDirs(List.of(id)).allDescriptions().get().get(id);
            LogDirDescription one = of.values().iterator().next(); return of.size() + " " + one.error() + one.replicaInfos().containsKey(tp("sweep", 0)) + one.replicaInfos().get(tp("sweep", 0)).offsetLag() + one.replicaInfos().get(tp("sweep", 0)).isFuture() + one.totalBytes().isPresent() + one.usableBytes().isPresent(); });
        call("describeReplicaLogDirs", () -> admin.describeReplicaLogDirs(List.of(new TopicPartitionReplica("sweep", 0, id))).all().get().values().iterator().next().getCurrentReplicaOffsetLag());
        call("describeReplicaLogDirs unknown", () -> admin.describeReplicaLogDirs(List.of(new TopicPartitionReplica("no-such", 0, id))).all().get());
        String dir = admin.describeLogDirs(List.of(id)).allDescriptions().get().get(id).keySet().iterator().next();
        call("alterReplicaLogDirs same", () -> all(admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica("sweep", 0, id), dir)).values()));
        call("alterReplicaLogDirs unknown dir", () -> all(admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica("sweep", 0, id), "/no/such")).values()));
        call("alterReplicaLogDirs unknown topic", () -> all(admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica("no-such", 0, id), dir)).values()));
        call("alterReplicaLogDirs relative", () -> all(admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica("sweep", 0, id), "data")).values()));
        call("electLeaders preferred", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(tp("sweep", 0))).partitions().get());
        call("electLeaders all", () -> admin.electLeaders(ElectionType.PREFERRED, null).partitions().get());
        call("electLeaders unclean", () -> admin.electLeaders(ElectionType.UNCLEAN, Set.of(tp("sweep", 0))).partitions().get());
        call("electLeaders unknown", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(tp("no-such", 0), tp("sweep", 99))).partitions().get());
        call("electLeaders none", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of()).partitions().get());
        call("clientInstanceId", () -> admin.clientInstanceId(java.time.Duration.ofSeconds(2)));
    }

    // ---- security

    static AclBinding acl(ResourceType type, String name, PatternType pattern, String principal, AclOperation operation, AclPermissionType permission) {
        return new AclBinding(new ResourcePattern(type, name, pattern), new AccessControlEntry(principal, "*", operation, permission));
    }

    static void security() {
        call("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
        call("createAcls", () -> all(admin.createAcls(List.of(acl(ResourceType.TOPIC, "sweep", PatternType.LITERAL, "User:alice", AclOperation.READ, AclPermissionType.ALLOW))).values()));
        call("deleteAcls", () -> all(admin.deleteAcls(List.of(AclBindingFilter.ANY)).values()));
        call("describeClientQuotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        ClientQuotaEntity alice = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "alice"));
        ClientQuotaEntity both = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "alice", ClientQuotaEntity.CLIENT_ID, "app"));
        ClientQuotaEntity client = new ClientQuotaEntity(Collections.singletonMap(ClientQuotaEntity.CLIENT_ID, null));
        ClientQuotaEntity ip = new ClientQuotaEntity(Map.of(ClientQuotaEntity.IP, "10.0.0.1"));
        call("alterClientQuotas", () -> all(admin.alterClientQuotas(List.of(
            new ClientQuotaAlteration(alice, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e9), new ClientQuotaAlteration.Op("request_percentage", 900.0))),
            new ClientQuotaAlteration(both, List.of(new ClientQuotaAlteration.Op("consumer_byte_rate", 2e9))),
            new ClientQuotaAlteration(client, List.of(new ClientQuotaAlteration.Op("controller_mutation_rate", 1000.5))),
            new ClientQuotaAlteration(ip, List.of(new ClientQuotaAlteration.Op("connection_creation_rate", 500.0))))).values()));
        call("describeClientQuotas all", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        call("describeClientQuotas user", () -> admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, "alice")))).entities().get());
        call("describeClientQuotas user only", () -> admin.describeClientQuotas(ClientQuotaFilter.containsOnly(List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, "alice")))).entities().get());
        call("describeClientQuotas default client", () -> admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofDefaultEntity(ClientQuotaEntity.CLIENT_ID)))).entities().get());
        call("describeClientQuotas any client", () -> admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntityType(ClientQuotaEntity.CLIENT_ID)))).entities().get());
        call("describeClientQuotas ip", () -> admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntityType(ClientQuotaEntity.IP)))).entities().get());
        call("describeClientQuotas unknown type", () -> admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntityType("planet")))).entities().get());
        call("describeClientQuotas ip and user", () -> admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntityType(ClientQuotaEntity.IP), ClientQuotaFilterComponent.ofEntityType(ClientQuotaEntity.USER)))).entities().get());
        call("describeClientQuotas twice", () -> admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntityType(ClientQuotaEntity.USER), ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, "bob")))).entities().get());
        for (Object[] bad : new Object[][] {{"no_such", 1.0}, {"producer_byte_rate", -5.0}, {"producer_byte_rate", 0.0}, {"producer_byte_rate", 1.5}, {"connection_creation_rate", 5.0}, {"request_percentage", 0.5}, {"producer_byte_rate", Double.NaN}}) {
            call("alterClientQuotas " + bad[0] + " " + bad[1], () -> all(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(alice, List.of(new ClientQuotaAlteration.Op((String) bad[0], (Double) bad[1]))))).values()));
        }
        call("alterClientQuotas unknown entity", () -> all(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(Map.of("planet", "mars")), List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1.0))))).values()));
        call("alterClientQuotas empty entity", () -> all(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(Map.of()), List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1.0))))).values()));
        call("alterClientQuotas empty name", () -> all(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "")), List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1.0))))).values()));
        call("alterClientQuotas ip and user", () -> all(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(Map.of(ClientQuotaEntity.IP, "10.0.0.2", ClientQuotaEntity.USER, "u")), List.of(new ClientQuotaAlteration.Op("connection_creation_rate", 1.0))))).values()));
        call("alterClientQuotas bad ip", () -> all(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(Map.of(ClientQuotaEntity.IP, "no such host!")), List.of(new ClientQuotaAlteration.Op("connection_creation_rate", 1.0))))).values()));
        call("alterClientQuotas validate", () -> all(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(alice, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 7.0)))), new AlterClientQuotasOptions().validateOnly(true)).values()));
        call("alterClientQuotas remove", () -> all(admin.alterClientQuotas(List.of(
            new ClientQuotaAlteration(alice, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", null), new ClientQuotaAlteration.Op("request_percentage", null))),
            new ClientQuotaAlteration(both, List.of(new ClientQuotaAlteration.Op("consumer_byte_rate", null))),
            new ClientQuotaAlteration(client, List.of(new ClientQuotaAlteration.Op("controller_mutation_rate", null))),
            new ClientQuotaAlteration(ip, List.of(new ClientQuotaAlteration.Op("connection_creation_rate", null))))).values()));
        call("describeClientQuotas at the end", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        call("describeUserScramCredentials none", () -> admin.describeUserScramCredentials().all().get());
        call("alterUserScramCredentials", () -> all(admin.alterUserScramCredentials(List.of(
            new UserScramCredentialUpsertion("alice", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"),
            new UserScramCredentialUpsertion("alice", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192), "secret"))).values()));
        call("describeUserScramCredentials", () -> admin.describeUserScramCredentials().all().get());
        call("describeUserScramCredentials some", () -> { DescribeUserScramCredentialsResult r = admin.describeUserScramCredentials(List.of("alice", "nobody")); return each((KafkaFuture<Object>) (KafkaFuture<?>) r.description("alice")) + each((KafkaFuture<Object>) (KafkaFuture<?>) r.description("nobody")); });
        call("describeUserScramCredentials twice", () -> each((KafkaFuture<Object>) (KafkaFuture<?>) admin.describeUserScramCredentials(List.of("alice", "alice")).description("alice")));
        call("alterUserScramCredentials few iterations", () -> all(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("bob", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 10), "secret"))).values()));
        call("alterUserScramCredentials many iterations", () -> all(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("bob", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 20000), "secret"))).values()));
        call("alterUserScramCredentials empty user", () -> all(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"))).values()));
        call("alterUserScramCredentials delete", () -> all(admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion("alice", ScramMechanism.SCRAM_SHA_256), new UserScramCredentialDeletion("alice", ScramMechanism.SCRAM_SHA_512))).values()));
        call("alterUserScramCredentials delete unknown", () -> all(admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion("nobody", ScramMechanism.SCRAM_SHA_256))).values()));
        call("createDelegationToken", () -> admin.createDelegationToken().delegationToken().get());
        call("describeDelegationToken", () -> admin.describeDelegationToken().delegationTokens().get());
        call("renewDelegationToken", () -> admin.renewDelegationToken("x".getBytes()).expiryTimestamp().get());
        call("expireDelegationToken", () -> admin.expireDelegationToken("x".getBytes()).expiryTimestamp().get());
    }

    // ---- reassignments

    static void partitions() throws Exception {
        int id = broker();
        call("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments().get());
        call("listPartitionReassignments unknown", () -> admin.listPartitionReassignments(Set.of(tp("no-such", 0))).reassignments().get());
        call("alterPartitionReassignments same", () -> all(admin.alterPartitionReassignments(Map.of(tp("sweep", 0), Optional.of(new NewPartitionReassignment(List.of(id))))).values()));
        call("alterPartitionReassignments cancel none", () -> all(admin.alterPartitionReassignments(Map.of(tp("sweep", 0), Optional.empty())).values()));
        call("alterPartitionReassignments unknown broker", () -> all(admin.alterPartitionReassignments(Map.of(tp("sweep", 0), Optional.of(new NewPartitionReassignment(List.of(77))))).values()));
        call("alterPartitionReassignments doubled", () -> all(admin.alterPartitionReassignments(Map.of(tp("sweep", 0), Optional.of(new NewPartitionReassignment(List.of(id, id))))).values()));
        call("alterPartitionReassignments negative", () -> all(admin.alterPartitionReassignments(Map.of(tp("sweep", 0), Optional.of(new NewPartitionReassignment(List.of(-1))))).values()));
        call("alterPartitionReassignments unknown topic", () -> all(admin.alterPartitionReassignments(Map.of(tp("no-such", 0), Optional.of(new NewPartitionReassignment(List.of(id))))).values()));
        call("alterPartitionReassignments unknown partition", () -> all(admin.alterPartitionReassignments(Map.of(tp("sweep", 99), Optional.of(new NewPartitionReassignment(List.of(id))))).values()));
    }

    static void deletions() {
        call("deleteTopics", () -> all(admin.deleteTopics(List.of("sweep-assigned", "no-such", "a/b")).topicNameValues()));
        call("deleteTopics id", () -> all(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).topicIdValues()));
        call("deleteTopics none", () -> all(admin.deleteTopics(List.<String>of()).topicNameValues()));
        call("deleteTopics internal", () -> all(admin.deleteTopics(List.of("__no-such-internal")).topicNameValues()));
    }
}
