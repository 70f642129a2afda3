import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** The methods of Admin that the clients of 4.0 and 4.1 brought. Compiled with those alone; Sweep calls it where it is there. */
public class Sweep41 {
    public static void calls() {
        Admin admin = Sweep.admin;
        TopicPartition tp = new TopicPartition("sweep", 0);
        Sweep.call("listGroups", () -> admin.listGroups().all().get().stream().map(GroupListing::toString).sorted().toList());
        Sweep.call("listGroups classic", () -> admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC))).all().get().stream().map(GroupListing::groupId).sorted().toList());
        Sweep.call("listGroups share", () -> admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.SHARE))).all().get().size());
        Sweep.call("listGroups empty ones", () -> admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))).all().get().stream().map(GroupListing::groupId).sorted().toList());
        Sweep.call("listGroups consumers", () -> admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get().stream().map(GroupListing::groupId).sorted().toList());
        Sweep.call("listGroups share groups", () -> admin.listGroups(ListGroupsOptions.forShareGroups()).all().get().size());
        Sweep.call("listGroups streams groups", () -> admin.listGroups(ListGroupsOptions.forStreamsGroups()).all().get().size());
        Sweep.call("describeClassicGroups", () -> admin.describeClassicGroups(List.of("sweep-group")).all().get().keySet());
        Sweep.call("describeClassicGroups unknown", () -> admin.describeClassicGroups(List.of("no-such-group")).all().get());
        Sweep.call("describeShareGroups unknown", () -> admin.describeShareGroups(List.of("no-such-group")).all().get());
        Sweep.call("describeStreamsGroups unknown", () -> admin.describeStreamsGroups(List.of("no-such-group")).all().get());
        Sweep.call("listConfigResources", () -> admin.listConfigResources().all().get().size());
        Sweep.call("listConfigResources topics", () -> admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all().get().size());
        Sweep.call("listConfigResources metrics", () -> admin.listConfigResources(Set.of(ConfigResource.Type.CLIENT_METRICS), new ListConfigResourcesOptions()).all().get().size());
        Sweep.call("listShareGroupOffsets", () -> admin.listShareGroupOffsets(Map.of("no-such-group", new ListShareGroupOffsetsSpec())).all().get());
        Sweep.call("alterShareGroupOffsets", () -> admin.alterShareGroupOffsets("no-such-group", Map.of(tp, 0L)).all().get());
        Sweep.call("deleteShareGroupOffsets", () -> admin.deleteShareGroupOffsets("no-such-group", Set.of("sweep")).all().get());
        Sweep.call("deleteShareGroups", () -> admin.deleteShareGroups(List.of("no-such-group")).all().get());
        Sweep.call("listStreamsGroupOffsets", () -> admin.listStreamsGroupOffsets(Map.of("no-such-group", new ListStreamsGroupOffsetsSpec())).all().get());
        Sweep.call("alterStreamsGroupOffsets", () -> admin.alterStreamsGroupOffsets("no-such-group", Map.of(tp, new OffsetAndMetadata(0))).all().get());
        Sweep.call("deleteStreamsGroupOffsets", () -> admin.deleteStreamsGroupOffsets("no-such-group", Set.of(tp)).all().get());
        Sweep.call("deleteStreamsGroups", () -> admin.deleteStreamsGroups(List.of("no-such-group")).all().get());
        Sweep.call("forceTerminateTransaction unknown", () -> admin.forceTerminateTransaction("no-such-id").result().get());
    }
}
