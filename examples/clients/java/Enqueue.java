// Enqueues a JSON job, a MessagePack job and a run of a workflow, and prints each result as it arrives.
// Usage: mvn dependency:copy-dependencies -DoutputDirectory=lib
//        REDIS_URL=redis://127.0.0.1:6379/0 java -cp 'lib/*' Enqueue.java [json] [msgpack] [run]
import java.net.URI;
import java.util.*;
import org.json.JSONObject;
import org.msgpack.core.MessagePack;
import redis.clients.jedis.*;
import redis.clients.jedis.params.*;

public class Enqueue {
    static byte[] bytes(String text) {
        return text.getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }

    public static void main(String[] args) throws Exception {
        var tidemill = Objects.requireNonNullElse(System.getenv("TIDEMILL_NAMESPACE"), "tm") + ":{0}:";
        var url = Objects.requireNonNullElse(System.getenv("REDIS_URL"), "redis://127.0.0.1:6379/0");
        var caller = "java-" + UUID.randomUUID();
        var replyTo = tidemill + "reply:" + caller;
        var kinds = args.length > 0 ? List.of(args) : List.of("json", "msgpack", "run");
        try (var db = new JedisPooled(URI.create(url))) {
            for (var kind : kinds) {
                // an id of our own makes it safe to send twice, and names the result
                var job = new HashMap<byte[], byte[]>(Map.of(bytes("id"), bytes(caller + "-" + kind),
                    bytes("result_ttl_ms"), bytes("60000"), bytes("reply_to"), bytes(replyTo)));
                if (kind.equals("run")) {
                    job.put(bytes("workflow"), bytes("greet"));
                    job.put(bytes("input"), bytes(new JSONObject(Map.of("name", "java")).toString()));
                } else if (kind.equals("msgpack")) {
                    var packer = MessagePack.newDefaultBufferPacker();
                    packer.packMapHeader(2).packString("from").packString("java").packString("n").packInt(2);
                    job.putAll(Map.of(bytes("tool"), bytes("echo"), bytes("enc"), bytes("msgpack"), bytes("input"), packer.toByteArray()));
                } else {
                    job.putAll(Map.of(bytes("tool"), bytes("echo"), bytes("input"), bytes("{\"from\":\"java\",\"n\":1}")));
                }
                var stream = bytes(tidemill + (kind.equals("run") ? "runs" : "jobs:default"));
                for (int i = 0; i < 2; i++) db.xadd(stream, XAddParams.xAddParams(), job);
            }
            var last = new StreamEntryID();
            var end = System.nanoTime() + 30_000_000_000L;
            for (int left = kinds.size(); left > 0; ) {
                if (System.nanoTime() > end) throw new IllegalStateException(left + " results did not arrive: does a worker serve the queue?");
                var streams = db.xread(XReadParams.xReadParams().count(1).block(1000), Map.of(replyTo, last));
                if (streams == null || streams.isEmpty()) continue;
                var entry = streams.get(0).getValue().get(0);
                last = entry.getID();
                left--;
                var result = entry.getFields().get("result");
                var id = new JSONObject(result).getString("id");
                if (!result.equals(db.get(tidemill + "result:" + id))) throw new IllegalStateException("the kept result is not the one that was sent");
                System.out.println(id.substring(id.lastIndexOf('-') + 1) + " " + result);
            }
            db.del(replyTo);
        }
    }
}
