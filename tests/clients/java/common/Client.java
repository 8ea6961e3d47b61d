import java.net.URL;
import java.util.List;
import java.util.Map;

/** What the course needs of an SDK. Every call either succeeds or throws what the SDK throws. */
interface Client extends AutoCloseable {

    /** What an answer says about encryption. */
    record Sealed(String algorithm, String keyId) {}

    /** What HEAD says. */
    record Head(long length, String contentType, Map<String, String> metadata, String etag, Sealed sealed) {}

    Sealed put(String key, byte[] body, String contentType, Map<String, String> metadata);

    Head head(String key);

    byte[] get(String key);

    byte[] getRange(String key, long first, long last);

    /** The object if it still has this ETag, else null. */
    byte[] getIfMatch(String key, String etag);

    /** Keys below a prefix, page by page with {@code pageSize} keys each. */
    List<String> list(String prefix, int pageSize);

    void copy(String from, String to);

    /** An upload in parts, all of them on the way at the same time. */
    void multipart(String key, List<byte[]> parts);

    /** Copies a whole object as parts of {@code partBytes}. */
    void multipartCopy(String from, String to, long length, long partBytes);

    URL presignGet(String key);

    URL presignPut(String key);

    void delete(String key);

    void deleteAll(List<String> keys);

    /** The error code that GET of a missing key ends with. */
    String codeOfMissing(String key);

    /** What only this SDK does. */
    void own(String prefix) throws Exception;

    @Override
    void close();
}
