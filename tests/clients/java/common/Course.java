import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.function.Function;

/**
 * The course that each SDK runs at each target: writes, reads, lists, copies, uploads in parts and deletes, and looks at every
 * byte and header that comes back. Targets come on standard input; each gets one line of output, and any failure ends with 1.
 */
final class Course {
    /** The smallest part that S3 takes, except for the last. */
    static final int PART_MIN = 5 << 20;

    private static final String TYPE = "application/x-course";
    private static final Map<String, String> METADATA = Map.of("plain", "a value", "spaces", "two words, and a comma", "number", "0042");
    private static final int TIMEOUT_MILLIS = 30_000;

    private final Target target;
    private final Client client;
    private String step = "start";

    private Course(Target target, Client client) {
        this.target = target;
        this.client = client;
    }

    static void main(Function<Target, Client> makes) throws Exception {
        boolean failed = false;
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            Target target = Target.parse(line);
            String reason = run(target, makes);
            System.out.println(target.name() + "\t" + (reason == null ? "ok" : "FAIL " + reason));
            failed |= reason != null;
        }
        System.exit(failed ? 1 : 0);
    }

    /** Nothing, or why it failed. */
    private static String run(Target target, Function<Target, Client> makes) {
        Course course = null;
        try (Client client = makes.apply(target)) {
            course = new Course(target, client);
            course.objects();
            course.listing();
            course.copies();
            course.parts();
            course.presigned();
            course.removal();
            course.step = "what only this SDK does";
            client.own(target.prefix() + "own/");
            return null;
        } catch (Exception | AssertionError error) {
            error.printStackTrace();
            return (course == null ? "start" : course.step) + ": " + error.toString().replaceAll("\\s+", " ");
        }
    }

    private void objects() {
        for (int size : new int[] {0, 1, 300_000}) {
            step = "PUT, HEAD and GET of " + size + " bytes";
            String key = target.prefix() + "objects/" + size;
            byte[] body = body(key, size);
            checkSealed("PUT", client.put(key, body, TYPE, METADATA), true);
            Client.Head head = client.head(key);
            equal("length", (long) size, head.length());
            equal("content type", TYPE, head.contentType());
            equal("user metadata", METADATA, head.metadata());
            checkSealed("HEAD", head.sealed(), target.headTellsKey());
            same("GET", body, client.get(key));
        }
        step = "ranges and conditions";
        String key = target.prefix() + "objects/300000";
        byte[] body = body(key, 300_000);
        same("a range over chunks", Arrays.copyOfRange(body, 65_000, 140_000), client.getRange(key, 65_000, 139_999));
        String etag = client.head(key).etag();
        same("GET with If-Match", body, client.getIfMatch(key, etag));
        equal("GET with another ETag", null, client.getIfMatch(key, "0123456789abcdef0123456789abcdef"));
        equal("code of a missing key", "NoSuchKey", client.codeOfMissing(target.prefix() + "missing"));
    }

    private void listing() {
        step = "odd keys and LIST";
        List<String> wanted = new ArrayList<>();
        for (String name : List.of("a b", "a+b", "a%2Fb", "a&b=c", "ünïcode/日本", "q?x", "tilde~(1)*'!", "semi;colon:,@$")) {
            String key = target.prefix() + "odd/" + name;
            byte[] body = body(key, 100);
            client.put(key, body, TYPE, Map.of());
            same(key, body, client.get(key));
            wanted.add(key);
        }
        List<String> found = new ArrayList<>(client.list(target.prefix() + "odd/", 3));
        wanted.sort(null);
        found.sort(null);
        equal("keys", wanted, found);
    }

    private void copies() {
        step = "CopyObject";
        String from = target.prefix() + "objects/300000", to = target.prefix() + "copies/the copy ü";
        client.copy(from, to);
        same("the copy", body(from, 300_000), client.get(to));
        checkSealed("HEAD of the copy", client.head(to).sealed(), target.headTellsKey());
    }

    private void parts() {
        step = "a multipart upload";
        String key = target.prefix() + "parts/whole";
        List<byte[]> parts = List.of(body("one", PART_MIN), body("two", PART_MIN), body("three", 12_345));
        client.multipart(key, parts);
        byte[] whole = new byte[2 * PART_MIN + 12_345];
        int at = 0;
        for (byte[] part : parts) {
            System.arraycopy(part, 0, whole, at, part.length);
            at += part.length;
        }
        same("the whole", whole, client.get(key));
        same("a range over two parts", Arrays.copyOfRange(whole, PART_MIN - 10, PART_MIN + 10), client.getRange(key, PART_MIN - 10, PART_MIN + 9));
        checkSealed("HEAD of the whole", client.head(key).sealed(), target.headTellsKey());
        step = "a copy in parts";
        String copy = target.prefix() + "parts/copy";
        client.multipartCopy(key, copy, whole.length, PART_MIN);
        same("the copy in parts", whole, client.get(copy));
    }

    private void presigned() throws Exception {
        step = "presigned URLs";
        String key = target.prefix() + "presigned/a key";
        byte[] body = body(key, 70_000);
        equal("status of a presigned PUT", 200, send("PUT", client.presignPut(key), body).getResponseCode());
        try (var answer = send("GET", client.presignGet(key), null).getInputStream()) {
            same("a presigned GET", body, answer.readAllBytes());
        }
    }

    private void removal() {
        step = "DELETE";
        String key = target.prefix() + "objects/1";
        client.delete(key);
        equal("code of a deleted key", "NoSuchKey", client.codeOfMissing(key));
        step = "DeleteObjects";
        List<String> odd = client.list(target.prefix() + "odd/", 1000);
        client.deleteAll(odd);
        equal("keys after all were deleted", List.of(), client.list(target.prefix() + "odd/", 1000));
    }

    private void checkSealed(String what, Client.Sealed sealed, boolean tellsKey) {
        equal("encryption that " + what + " reports", target.seenAlgorithm(), sealed.algorithm());
        if (target.seenKeyId() == null) {
            return;
        }
        if (!tellsKey) {
            equal("key that " + what + " must not tell", null, sealed.keyId());
        } else if (sealed.keyId() == null || !sealed.keyId().endsWith(target.seenKeyId())) {
            throw new AssertionError("key that " + what + " reports: " + sealed.keyId() + ", not " + target.seenKeyId());
        }
    }

    private static HttpURLConnection send(String method, URL url, byte[] body) throws Exception {
        var connection = (HttpURLConnection) url.openConnection();
        connection.setRequestMethod(method);
        connection.setConnectTimeout(TIMEOUT_MILLIS);
        connection.setReadTimeout(TIMEOUT_MILLIS);
        if (body != null) {
            connection.setDoOutput(true);
            connection.setFixedLengthStreamingMode(body.length);
            try (OutputStream out = connection.getOutputStream()) {
                out.write(body);
            }
        }
        return connection;
    }

    /** Bytes that depend on the seed alone. */
    static byte[] body(String seed, int size) {
        byte[] bytes = new byte[size];
        new Random(seed.hashCode()).nextBytes(bytes);
        return bytes;
    }

    static void equal(String what, Object wanted, Object found) {
        if (!Objects.equals(wanted, found)) {
            throw new AssertionError(what + ": " + found + ", not " + wanted);
        }
    }

    static void same(String what, byte[] wanted, byte[] found) {
        if (found == null || !Arrays.equals(wanted, found)) {
            throw new AssertionError(what + ": other bytes came back, " + (found == null ? "none" : found.length) + " of " + wanted.length);
        }
    }
}
