import java.net.URI;
import java.net.URL;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.awscore.retry.AwsRetryStrategy;
import software.amazon.awssdk.core.ResponseInputStream;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3Configuration;
import software.amazon.awssdk.services.s3.model.ChecksumAlgorithm;
import software.amazon.awssdk.services.s3.model.ChecksumMode;
import software.amazon.awssdk.services.s3.model.ChecksumType;
import software.amazon.awssdk.services.s3.model.CompletedPart;
import software.amazon.awssdk.services.s3.model.GetObjectResponse;
import software.amazon.awssdk.services.s3.model.ObjectIdentifier;
import software.amazon.awssdk.services.s3.model.S3Exception;
import software.amazon.awssdk.services.s3.model.S3Object;
import software.amazon.awssdk.services.s3.presigner.S3Presigner;

/**
 * The AWS SDK for Java v2, which S3A since Hadoop 3.4 is built on, at a version that sends a CRC32 with every upload: as a
 * trailer after the body, in signed chunks on plain HTTP and in unsigned ones on HTTPS.
 */
final class ClientV2 implements Client {
    private static final Duration PRESIGNED_FOR = Duration.ofMinutes(5);

    private final Target target;
    private final S3Client s3;
    private final S3Presigner presigner;

    private ClientV2(Target target) {
        this.target = target;
        var credentials = StaticCredentialsProvider.create(
                AwsBasicCredentials.create(System.getenv("AWS_ACCESS_KEY_ID"), System.getenv("AWS_SECRET_ACCESS_KEY")));
        this.s3 = S3Client.builder()
                .endpointOverride(URI.create(target.endpoint())).region(Region.US_EAST_1).credentialsProvider(credentials)
                .forcePathStyle(true)
                // A second attempt would hide that the first one failed.
                .overrideConfiguration(c -> c.retryStrategy(AwsRetryStrategy.doNotRetry()))
                .build();
        this.presigner = S3Presigner.builder()
                .endpointOverride(URI.create(target.endpoint())).region(Region.US_EAST_1).credentialsProvider(credentials)
                .serviceConfiguration(S3Configuration.builder().pathStyleAccessEnabled(true).build())
                .build();
    }

    public static void main(String[] arguments) throws Exception {
        Course.main(ClientV2::new);
    }

    @Override
    public Sealed put(String key, byte[] body, String contentType, Map<String, String> metadata) {
        var answer = s3.putObject(
                r -> r.bucket(target.bucket()).key(key).contentType(contentType).metadata(metadata)
                        .serverSideEncryption(target.algorithm()).ssekmsKeyId(target.keyId()),
                RequestBody.fromBytes(body));
        return new Sealed(answer.serverSideEncryptionAsString(), answer.ssekmsKeyId());
    }

    @Override
    public Head head(String key) {
        var found = s3.headObject(r -> r.bucket(target.bucket()).key(key));
        var sealed = new Sealed(found.serverSideEncryptionAsString(), found.ssekmsKeyId());
        return new Head(found.contentLength(), found.contentType(), found.metadata(), found.eTag(), sealed);
    }

    @Override
    public byte[] get(String key) {
        return s3.getObjectAsBytes(r -> r.bucket(target.bucket()).key(key)).asByteArray();
    }

    @Override
    public byte[] getRange(String key, long first, long last) {
        return s3.getObjectAsBytes(r -> r.bucket(target.bucket()).key(key).range("bytes=" + first + "-" + last)).asByteArray();
    }

    @Override
    public byte[] getIfMatch(String key, String etag) {
        try {
            return s3.getObjectAsBytes(r -> r.bucket(target.bucket()).key(key).ifMatch(etag)).asByteArray();
        } catch (S3Exception error) {
            if (error.statusCode() == 412) {
                return null;
            }
            throw error;
        }
    }

    @Override
    public List<String> list(String prefix, int pageSize) {
        return s3.listObjectsV2Paginator(r -> r.bucket(target.bucket()).prefix(prefix).maxKeys(pageSize)).contents().stream().map(S3Object::key).toList();
    }

    @Override
    public void copy(String from, String to) {
        s3.copyObject(r -> r.sourceBucket(target.bucket()).sourceKey(from).destinationBucket(target.bucket()).destinationKey(to)
                .serverSideEncryption(target.algorithm()).ssekmsKeyId(target.keyId()));
    }

    @Override
    public void multipart(String key, List<byte[]> parts) {
        String upload = create(key, ChecksumAlgorithm.CRC32);
        complete(key, upload, IntStream.range(0, parts.size()).parallel().mapToObj(i -> {
            var answer = s3.uploadPart(
                    r -> r.bucket(target.bucket()).key(key).uploadId(upload).partNumber(i + 1).checksumAlgorithm(ChecksumAlgorithm.CRC32),
                    RequestBody.fromBytes(parts.get(i)));
            return CompletedPart.builder().partNumber(i + 1).eTag(answer.eTag()).checksumCRC32(answer.checksumCRC32()).build();
        }).toList());
    }

    @Override
    public void multipartCopy(String from, String to, long length, long partBytes) {
        // Without a checksum: MinIO gives none for a part that is a copy, and then wants it at the end.
        String upload = create(to, null);
        int count = (int) ((length + partBytes - 1) / partBytes);
        complete(to, upload, IntStream.range(0, count).parallel().mapToObj(i -> {
            String range = "bytes=" + i * partBytes + "-" + (Math.min(length, (i + 1) * partBytes) - 1);
            var answer = s3.uploadPartCopy(r -> r.sourceBucket(target.bucket()).sourceKey(from)
                    .destinationBucket(target.bucket()).destinationKey(to).uploadId(upload).partNumber(i + 1).copySourceRange(range));
            return CompletedPart.builder().partNumber(i + 1).eTag(answer.copyPartResult().eTag()).build();
        }).toList());
    }

    private String create(String key, ChecksumAlgorithm algorithm) {
        return s3.createMultipartUpload(r -> r.bucket(target.bucket()).key(key).checksumAlgorithm(algorithm)
                .checksumType(algorithm == null ? null : ChecksumType.COMPOSITE).serverSideEncryption(target.algorithm()).ssekmsKeyId(target.keyId())).uploadId();
    }

    private void complete(String key, String upload, List<CompletedPart> parts) {
        s3.completeMultipartUpload(r -> r.bucket(target.bucket()).key(key).uploadId(upload).multipartUpload(u -> u.parts(parts)));
    }

    @Override
    public URL presignGet(String key) {
        return presigner.presignGetObject(p -> p.signatureDuration(PRESIGNED_FOR).getObjectRequest(r -> r.bucket(target.bucket()).key(key))).url();
    }

    @Override
    public URL presignPut(String key) {
        return presigner.presignPutObject(p -> p.signatureDuration(PRESIGNED_FOR).putObjectRequest(r -> r.bucket(target.bucket()).key(key))).url();
    }

    @Override
    public void delete(String key) {
        s3.deleteObject(r -> r.bucket(target.bucket()).key(key));
    }

    @Override
    public void deleteAll(List<String> keys) {
        var objects = keys.stream().map(key -> ObjectIdentifier.builder().key(key).build()).toList();
        var answer = s3.deleteObjects(r -> r.bucket(target.bucket()).delete(d -> d.objects(objects)));
        Course.equal("errors of DeleteObjects", List.of(), answer.errors());
    }

    @Override
    public String codeOfMissing(String key) {
        try (ResponseInputStream<GetObjectResponse> found = s3.getObject(r -> r.bucket(target.bucket()).key(key))) {
            found.abort();
            return null;
        } catch (S3Exception error) {
            return error.awsErrorDetails().errorCode();
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    /** The checksum that was sent in a trailer is kept and given back, of each kind; a condition on PUT holds. */
    @Override
    public void own(String prefix) {
        for (ChecksumAlgorithm algorithm : List.of(ChecksumAlgorithm.CRC32, ChecksumAlgorithm.CRC32_C, ChecksumAlgorithm.SHA256)) {
            String key = prefix + algorithm;
            byte[] body = Course.body(key, 200_000);
            var put = s3.putObject(
                    r -> r.bucket(target.bucket()).key(key).checksumAlgorithm(algorithm)
                            .serverSideEncryption(target.algorithm()).ssekmsKeyId(target.keyId()),
                    RequestBody.fromBytes(body));
            var head = s3.headObject(r -> r.bucket(target.bucket()).key(key).checksumMode(ChecksumMode.ENABLED));
            Course.equal("CRC32", put.checksumCRC32(), head.checksumCRC32());
            Course.equal("CRC32C", put.checksumCRC32C(), head.checksumCRC32C());
            Course.equal("SHA256", put.checksumSHA256(), head.checksumSHA256());
            var sums = java.util.Arrays.asList(head.checksumCRC32(), head.checksumCRC32C(), head.checksumSHA256());
            Course.equal("checksums of " + key, 1L, sums.stream().filter(java.util.Objects::nonNull).count());
            Course.same(key, body, get(key));
        }
        try {
            s3.putObject(r -> r.bucket(target.bucket()).key(prefix + ChecksumAlgorithm.CRC32).ifNoneMatch("*"), RequestBody.fromString("again"));
            throw new AssertionError("If-None-Match: * has overwritten an object");
        } catch (S3Exception error) {
            Course.equal("status of a PUT onto an existing object", 412, error.statusCode());
        }
    }

    @Override
    public void close() {
        s3.close();
        presigner.close();
    }
}
