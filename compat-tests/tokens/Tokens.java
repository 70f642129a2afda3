import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.token.delegation.DelegationToken;
import org.apache.kafka.common.security.token.delegation.TokenInformation;

/**
 * The life of delegation tokens, one line for each call: its label, then what it answered or the error. Ids, times and
 * keys are masked, so that the lines of two brokers can be compared. Arguments: the listener that asks nobody, the one
 * that asks for SASL, and the password of all users.
 */
public class Tokens {
    static String open, asks, password;

    public static void main(String[] args) throws Exception {
        open = args[0];
        asks = args[1];
        password = args[2];
        if (args.length > 3 && args[3].equals("make")) make();
        if (args.length > 3) elsewhere(args[3]);
        Admin anonymous = Admin.create(props(open));
        Admin admin = Admin.create(plain("admin"));
        Admin alice = Admin.create(plain("alice"));
        Admin bob = Admin.create(plain("bob"));
        Admin carol = Admin.create(plain("carol"));
        nobody(anonymous);
        DelegationToken token = create(admin, alice);
        renew(token, alice, bob, carol);
        describe(admin, alice, bob, carol);
        behalf(admin, alice, bob, carol);
        login(token);
        expire(token, alice, bob, carol);
        System.exit(0);
    }

    static void make() throws Exception {
        Admin alice = Admin.create(plain("alice"));
        for (int n = 0; n < 3; n++) alice.createDelegationToken().delegationToken().get();
        System.exit(0);
    }

    /** A token that one broker made is shown to another: whatever it says, it says it within a while. */
    static void elsewhere(String other) throws Exception {
        DelegationToken token = Admin.create(plain("alice")).createDelegationToken().delegationToken().get();
        Properties props = scram("SCRAM-SHA-512", token.tokenInfo().tokenId(), token.hmacAsBase64String(), true);
        props.put("bootstrap.servers", other);
        long until = System.currentTimeMillis() + 30_000;
        while (true) {
            try {
                System.out.println("elsewhere => " + nodes(props));
                break;
            } catch (ExecutionException error) {
                if (System.currentTimeMillis() > until) throw error;
                Thread.sleep(200);
            }
        }
        asks = other;
        Admin alice = Admin.create(plain("alice"));
        say("renewed elsewhere", () -> renewed(alice, token.hmac(), 60_000));
        say("expired elsewhere", () -> expired(alice, token.hmac(), -1));
        System.exit(0);
    }

    static void nobody(Admin anonymous) {
        byte[] none = new byte[] {1, 2, 3};
        say("nobody creates", () -> shown(anonymous.createDelegationToken().delegationToken().get()));
        say("nobody renews", () -> anonymous.renewDelegationToken(none).expiryTimestamp().get());
        say("nobody expires", () -> anonymous.expireDelegationToken(none).expiryTimestamp().get());
        say("nobody describes", () -> anonymous.describeDelegationToken().delegationTokens().get());
    }

    static DelegationToken create(Admin admin, Admin alice) throws Exception {
        DelegationToken[] kept = new DelegationToken[1];
        say("create", () -> shown(alice.createDelegationToken().delegationToken().get()));
        say("create with a renewer, for an hour", () -> {
            CreateDelegationTokenOptions options = new CreateDelegationTokenOptions().maxlifeTimeMs(3600_000);
            kept[0] = alice.createDelegationToken(options.renewers(List.of(user("bob")))).delegationToken().get();
            return shown(kept[0]);
        });
        for (long life : new long[] {0, -1, -5, 1, 1000L * 60 * 60 * 24 * 6, Long.MAX_VALUE})
            say("create for " + life, () -> shown(alice.createDelegationToken(
                new CreateDelegationTokenOptions().maxlifeTimeMs(life)).delegationToken().get()));
        say("create with a renewer of another kind", () -> shown(alice.createDelegationToken(
            new CreateDelegationTokenOptions().renewers(List.of(new KafkaPrincipal("Group", "g")))).delegationToken().get()));
        say("create with the owner as renewer, and twice", () -> shown(alice.createDelegationToken(
            new CreateDelegationTokenOptions().renewers(List.of(user("alice"), user("bob"), user("bob")))).delegationToken().get()));
        say("create with a strange renewer", () -> shown(alice.createDelegationToken(
            new CreateDelegationTokenOptions().renewers(List.of(user("CN=a b,O=c/d*%")))).delegationToken().get()));
        return kept[0];
    }

    static void renew(DelegationToken token, Admin alice, Admin bob, Admin carol) {
        for (long period : new long[] {-1, 60_000, 1800_000, 7200_000, -7})
            say("renew for " + period, () -> renewed(alice, token.hmac(), period));
        say("a renewer renews", () -> renewed(bob, token.hmac(), 1800_000));
        say("another renews", () -> renewed(carol, token.hmac(), 1800_000));
        say("renew what is not there", () -> renewed(alice, new byte[] {1, 2, 3}, -1));
        say("renew nothing", () -> renewed(alice, new byte[0], -1));
    }

    static void describe(Admin admin, Admin alice, Admin bob, Admin carol) throws Exception {
        say("describe own", () -> described(alice, null));
        say("describe as renewer", () -> described(bob, null));
        say("describe as another", () -> described(carol, null));
        say("describe as super user", () -> described(admin, null));
        say("describe of no owners", () -> described(alice, Collections.emptyList()));
        say("describe of oneself", () -> described(alice, List.of(user("alice"))));
        say("describe of a renewer", () -> described(alice, List.of(user("bob"))));
        say("describe of another", () -> described(alice, List.of(user("carol"))));
        say("describe of two", () -> described(alice, List.of(user("carol"), user("alice"))));
        say("another describes of alice", () -> described(carol, List.of(user("alice"))));
        acl(admin, "carol", ResourceType.USER, "User:alice", AclOperation.DESCRIBE_TOKENS);
        say("another that may describes", () -> described(carol, null));
        say("another that may describes of alice", () -> described(carol, List.of(user("alice"))));
        // Kafka has no order of tokens, and klamm that of their ids, which are drawn.
        String id = alice.describeDelegationToken().delegationTokens().get().stream().map(DelegationToken::tokenInfo)
            .filter(token -> token.renewers().isEmpty() && token.owner().equals(token.tokenRequester()))
            .findFirst().get().tokenId();
        acl(admin, "dave", ResourceType.DELEGATION_TOKEN, id, AclOperation.DESCRIBE);
        Admin dave = Admin.create(plain("dave"));
        say("another that may describe one token describes", () -> described(dave, null));
    }

    static void behalf(Admin admin, Admin alice, Admin bob, Admin carol) throws Exception {
        CreateDelegationTokenOptions forCarol = new CreateDelegationTokenOptions().owner(user("carol"));
        say("create for another", () -> shown(bob.createDelegationToken(forCarol).delegationToken().get()));
        say("create for oneself by name", () -> shown(bob.createDelegationToken(
            new CreateDelegationTokenOptions().owner(user("bob"))).delegationToken().get()));
        say("create for another kind", () -> shown(bob.createDelegationToken(
            new CreateDelegationTokenOptions().owner(new KafkaPrincipal("Group", "g"))).delegationToken().get()));
        say("a super user creates for another kind", () -> shown(admin.createDelegationToken(
            new CreateDelegationTokenOptions().owner(new KafkaPrincipal("Group", "g"))).delegationToken().get()));
        acl(admin, "bob", ResourceType.USER, "User:carol", AclOperation.CREATE_TOKENS);
        DelegationToken[] made = new DelegationToken[1];
        say("create for another who lets one", () -> {
            made[0] = bob.createDelegationToken(forCarol).delegationToken().get();
            return shown(made[0]);
        });
        say("the requester describes", () -> described(bob, List.of(user("carol"))));
        say("the requester renews", () -> renewed(bob, made[0].hmac(), 60_000));
        say("the owner renews", () -> renewed(carol, made[0].hmac(), 60_000));
        say("the owner describes", () -> described(carol, List.of(user("carol"))));
        say("the owner logs in with it", () -> admin256(made[0]).describeCluster().nodes().get().size());
    }

    static void login(DelegationToken token) {
        for (String mechanism : List.of("SCRAM-SHA-256", "SCRAM-SHA-512")) {
            Admin by = Admin.create(scram(mechanism, token.tokenInfo().tokenId(), token.hmacAsBase64String(), true));
            say(mechanism + " logs in", () -> by.describeCluster().nodes().get().size());
            say(mechanism + " creates", () -> shown(by.createDelegationToken().delegationToken().get()));
            say(mechanism + " renews", () -> renewed(by, token.hmac(), 60_000));
            say(mechanism + " expires", () -> expired(by, token.hmac(), 60_000));
            say(mechanism + " describes", () -> described(by, null));
            by.close();
        }
        String id = token.tokenInfo().tokenId(), key = token.hmacAsBase64String();
        say("login with another key", () -> nodes(scram("SCRAM-SHA-256", id, "wrong", true)));
        say("login with another id", () -> nodes(scram("SCRAM-SHA-256", "nobody", key, true)));
        say("login without the extension", () -> nodes(scram("SCRAM-SHA-256", id, key, false)));
        say("login of a user with the extension", () -> nodes(scram("SCRAM-SHA-256", "alice", password, true)));
        say("login of a token by PLAIN", () -> nodes(sasl("PLAIN",
            "plain.PlainLoginModule required username=\"" + id + "\" password=\"" + key + "\";")));
    }

    static void expire(DelegationToken token, Admin alice, Admin bob, Admin carol) throws Exception {
        Admin by = admin256(token);
        say("a token's client is there", () -> by.describeCluster().nodes().get().size());
        say("another expires", () -> expired(carol, token.hmac(), 60_000));
        say("expire what is not there", () -> expired(alice, new byte[] {1, 2, 3}, -1));
        say("expire in a minute", () -> expired(alice, token.hmac(), 60_000));
        say("expire long after its life", () -> expired(alice, token.hmac(), 7200_000_000L));
        say("a renewer expires", () -> expired(bob, token.hmac(), 50_000));
        say("expire in no time", () -> expired(alice, token.hmac(), 0));
        Thread.sleep(50);
        say("renew what has expired", () -> renewed(alice, token.hmac(), -1));
        say("expire what has expired", () -> expired(alice, token.hmac(), 60_000));
        say("describe what has expired", () -> described(alice, List.of(user("bob"))));
        say("login with what has expired", () -> nodes(scram("SCRAM-SHA-256", token.tokenInfo().tokenId(),
            token.hmacAsBase64String(), true)));
        say("expire now", () -> expired(alice, token.hmac(), -1));
        say("expire now again", () -> expired(alice, token.hmac(), -1));
        say("login with what is gone", () -> nodes(scram("SCRAM-SHA-256", token.tokenInfo().tokenId(),
            token.hmacAsBase64String(), true)));
    }

    static Object renewed(Admin admin, byte[] hmac, long period) throws Exception {
        long now = System.currentTimeMillis();
        long at = admin.renewDelegationToken(hmac, new RenewDelegationTokenOptions().renewTimePeriodMs(period))
            .expiryTimestamp().get();
        return "expires in " + about(at - now);
    }

    static Object expired(Admin admin, byte[] hmac, long period) throws Exception {
        long now = System.currentTimeMillis();
        long at = admin.expireDelegationToken(hmac, new ExpireDelegationTokenOptions().expiryTimePeriodMs(period))
            .expiryTimestamp().get();
        return "expires in " + about(at - now);
    }

    /** To the minute, of which a busy machine may take the larger part. */
    static String about(long ms) {
        return Math.floorDiv(ms + 40_000, 60_000) + " min";
    }

    static Object described(Admin admin, List<KafkaPrincipal> owners) throws Exception {
        TreeSet<String> lines = new TreeSet<>();
        int count = 0;
        for (DelegationToken token : admin.describeDelegationToken(new DescribeDelegationTokenOptions().owners(owners))
                .delegationTokens().get()) {
            TokenInformation info = token.tokenInfo();
            lines.add(info.ownerAsString() + " by " + info.tokenRequester() + " " + new TreeSet<>(info.renewersAsString())
                + " key of " + token.hmac().length);
            count++;
        }
        return count + " tokens " + lines;
    }

    static String shown(DelegationToken token) {
        TokenInformation info = token.tokenInfo();
        return info.ownerAsString() + " by " + info.tokenRequester() + " renewers " + info.renewersAsString() + " expires "
            + about(info.expiryTimestamp() - info.issueTimestamp()) + " of " + about(info.maxTimestamp() - info.issueTimestamp())
            + " id of " + info.tokenId().length() + " key of " + token.hmac().length;
    }

    static Object nodes(Properties props) throws Exception {
        try (Admin admin = Admin.create(props)) {
            return admin.describeCluster().nodes().get().size();
        }
    }

    static Admin admin256(DelegationToken token) {
        return Admin.create(scram("SCRAM-SHA-256", token.tokenInfo().tokenId(), token.hmacAsBase64String(), true));
    }

    static KafkaPrincipal user(String name) {
        return new KafkaPrincipal("User", name);
    }

    static void acl(Admin admin, String who, ResourceType type, String name, AclOperation operation) throws Exception {
        admin.createAcls(List.of(new AclBinding(new ResourcePattern(type, name, PatternType.LITERAL),
            new AccessControlEntry("User:" + who, "*", operation, AclPermissionType.ALLOW)))).all().get();
        // The other brokers, and Kafka itself, learn it by the notes.
        Thread.sleep(500);
    }

    static Properties plain(String user) {
        return sasl("PLAIN", "plain.PlainLoginModule required username=\"" + user + "\" password=\"" + password + "\";");
    }

    static Properties scram(String mechanism, String user, String key, boolean token) {
        String more = token ? " tokenauth=\"true\"" : "";
        return sasl(mechanism, "scram.ScramLoginModule required username=\"" + user + "\" password=\"" + key + "\"" + more + ";");
    }

    static Properties sasl(String mechanism, String login) {
        Properties props = props(asks);
        props.put("security.protocol", "SASL_PLAINTEXT");
        props.put("sasl.mechanism", mechanism);
        props.put("sasl.jaas.config", "org.apache.kafka.common.security." + login);
        return props;
    }

    static Properties props(String bootstrap) {
        Properties props = new Properties();
        props.put("bootstrap.servers", bootstrap);
        props.put("request.timeout.ms", "8000");
        props.put("default.api.timeout.ms", "8000");
        return props;
    }

    static void say(String label, Callable<Object> call) {
        String line;
        try {
            line = String.valueOf(call.call());
        } catch (ExecutionException error) {
            line = error.getCause().getClass().getSimpleName() + ": " + error.getCause().getMessage();
        } catch (Exception error) {
            line = error.getClass().getSimpleName() + ": " + error.getMessage();
        }
        System.out.println(label + " => " + line);
    }
}
