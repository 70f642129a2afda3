import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads partition 0 of topics until the position is the end offset, as Kafka Streams restores a store.
 *
 * Arguments: bootstrap, then TOPIC:ISOLATION_LEVEL:START. Prints each of them with the offset that was reached, or with
 * "hung-at-POSITION-of-END" after 30 s.
 */
public class Ends {
    public static void main(String[] arguments) {
        for (int at = 1; at < arguments.length; at++) {
            String[] parts = arguments[at].split(":");
            System.out.println(arguments[at] + " " + reached(arguments[0], parts[0], parts[1], Long.parseLong(parts[2])));
        }
    }

    static String reached(String bootstrap, String topic, String level, long start) {
        Properties settings = new Properties();
        settings.putAll(Map.of("bootstrap.servers", bootstrap, "isolation.level", level, "auto.offset.reset", "none"));
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings, bytes, bytes)) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, start);
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            while (consumer.position(partition) < end) {
                if (System.nanoTime() > deadline) {
                    return "hung-at-" + consumer.position(partition) + "-of-" + end;
                }
                consumer.poll(Duration.ofMillis(200));
            }
            return Long.toString(consumer.position(partition));
        }
    }
}
