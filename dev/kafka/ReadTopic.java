import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Prints each record of a topic as a line of JSON, as Java's own client reads it: java ReadTopic.java BROKERS TOPIC. */
public class ReadTopic {
    public static void main(String[] arguments) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("key.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties)) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(arguments[1]).forEach(p -> partitions.add(new TopicPartition(p.topic(), p.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long missing = consumer.endOffsets(partitions).values().stream().mapToLong(Long::longValue).sum();
            while (missing > 0) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    missing--;
                    StringBuilder headers = new StringBuilder();
                    record.headers().forEach(header -> {
                        headers.append(headers.length() == 0 ? "" : ",");
                        headers.append('"').append(header.key()).append("\":\"").append(text(header.value())).append('"');
                    });
                    System.out.printf("{\"partition\":%d,\"expected_partition\":%d,\"key\":\"%s\",\"headers\":{%s},\"value\":\"%s\"}%n",
                        record.partition(), BuiltInPartitioner.partitionForKey(record.key(), partitions.size()),
                        text(record.key()), headers, text(record.value()));
                }
            }
        }
    }

    private static String text(byte[] bytes) {
        return Base64.getEncoder().encodeToString(bytes);
    }
}
