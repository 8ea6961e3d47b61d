import com.amazonaws.ClientConfiguration;
import com.amazonaws.HttpMethod;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.s3.AmazonS3;
import com.amazonaws.services.s3.AmazonS3ClientBuilder;
import com.amazonaws.services.s3.model.AmazonS3Exception;
import com.amazonaws.services.s3.model.CompleteMultipartUploadRequest;
import com.amazonaws.services.s3.model.CopyObjectRequest;
import com.amazonaws.services.s3.model.CopyPartRequest;
import com.amazonaws.services.s3.model.DeleteObjectsRequest;
import com.amazonaws.services.s3.model.GeneratePresignedUrlRequest;
import com.amazonaws.services.s3.model.GetObjectRequest;
import com.amazonaws.services.s3.model.InitiateMultipartUploadRequest;
import com.amazonaws.services.s3.model.ListObjectsV2Request;
import com.amazonaws.services.s3.model.ObjectMetadata;
import com.amazonaws.services.s3.model.PartETag;
import com.amazonaws.services.s3.model.PutObjectRequest;
import com.amazonaws.services.s3.model.S3Object;
import com.amazonaws.services.s3.model.S3ObjectSummary;
import com.amazonaws.services.s3.model.SSEAwsKeyManagementParams;
import com.amazonaws.services.s3.model.UploadPartRequest;
import com.amazonaws.util.IOUtils;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URL;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * The AWS SDK for Java v1, which S3A up to Hadoop 3.3 is built on.
 *
 * On plain HTTP it signs each chunk of a body; on HTTPS it signs none of it, unless told to. And on plain HTTP it refuses
 * SSE-KMS that is asked for in the usual way, so there the headers are set by hand.
 */
final class ClientV1 implements Client {
    private static final String KEY_ID = "x-amz-server-side-encryption-aws-kms-key-id";

    private final Target target;
    private final AmazonS3 s3;

    private ClientV1(Target target) {
        this.target = target;
        this.s3 = client(target, false);
    }

    public static void main(String[] arguments) throws Exception {
        Course.main(ClientV1::new);
    }

    private static AmazonS3 client(Target target, boolean signsPayloads) {
        var credentials = new BasicAWSCredentials(System.getenv("AWS_ACCESS_KEY_ID"), System.getenv("AWS_SECRET_ACCESS_KEY"));
        return AmazonS3ClientBuilder.standard()
                .withEndpointConfiguration(new EndpointConfiguration(target.endpoint(), "us-east-1"))
                .withPathStyleAccessEnabled(true)
                .withPayloadSigningEnabled(signsPayloads)
                .withCredentials(new AWSStaticCredentialsProvider(credentials))
                // A second attempt would hide that the first one failed.
                .withClientConfiguration(new ClientConfiguration().withMaxErrorRetry(0))
                .build();
    }

    @Override
    public Sealed put(String key, byte[] body, String contentType, Map<String, String> metadata) {
        return put(s3, key, body, contentType, metadata);
    }

    private Sealed put(AmazonS3 by, String key, byte[] body, String contentType, Map<String, String> metadata) {
        ObjectMetadata headers = encrypted(new ObjectMetadata());
        headers.setContentLength(body.length);
        headers.setContentType(contentType);
        metadata.forEach(headers::addUserMetadata);
        var request = new PutObjectRequest(target.bucket(), key, new ByteArrayInputStream(body), headers);
        if (usesParameters()) {
            request.setSSEAwsKeyManagementParams(parameters());
        }
        return sealed(by.putObject(request).getMetadata());
    }

    @Override
    public Head head(String key) {
        ObjectMetadata found = s3.getObjectMetadata(target.bucket(), key);
        return new Head(found.getContentLength(), found.getContentType(), found.getUserMetadata(), found.getETag(), sealed(found));
    }

    @Override
    public byte[] get(String key) {
        return read(s3.getObject(target.bucket(), key));
    }

    @Override
    public byte[] getRange(String key, long first, long last) {
        return read(s3.getObject(new GetObjectRequest(target.bucket(), key).withRange(first, last)));
    }

    @Override
    public byte[] getIfMatch(String key, String etag) {
        S3Object found = s3.getObject(new GetObjectRequest(target.bucket(), key).withMatchingETagConstraint(etag));
        return found == null ? null : read(found);
    }

    @Override
    public List<String> list(String prefix, int pageSize) {
        List<String> keys = new ArrayList<>();
        var request = new ListObjectsV2Request().withBucketName(target.bucket()).withPrefix(prefix).withMaxKeys(pageSize);
        while (true) {
            var page = s3.listObjectsV2(request);
            page.getObjectSummaries().stream().map(S3ObjectSummary::getKey).forEach(keys::add);
            if (!page.isTruncated()) {
                return keys;
            }
            request.setContinuationToken(page.getNextContinuationToken());
        }
    }

    @Override
    public void copy(String from, String to) {
        var request = new CopyObjectRequest(target.bucket(), from, target.bucket(), to);
        if (usesParameters()) {
            request.setSSEAwsKeyManagementParams(parameters());
        } else if (target.algorithm() != null) {
            request.setNewObjectMetadata(encrypted(new ObjectMetadata()));
        }
        s3.copyObject(request);
    }

    @Override
    public void multipart(String key, List<byte[]> parts) {
        String upload = initiate(key);
        complete(key, upload, IntStream.range(0, parts.size()).parallel().mapToObj(i -> {
            byte[] part = parts.get(i);
            return s3.uploadPart(new UploadPartRequest()
                    .withBucketName(target.bucket()).withKey(key).withUploadId(upload).withPartNumber(i + 1)
                    .withInputStream(new ByteArrayInputStream(part)).withPartSize(part.length)).getPartETag();
        }).toList());
    }

    @Override
    public void multipartCopy(String from, String to, long length, long partBytes) {
        String upload = initiate(to);
        int count = (int) ((length + partBytes - 1) / partBytes);
        complete(to, upload, IntStream.range(0, count).parallel().mapToObj(i -> s3.copyPart(new CopyPartRequest()
                .withSourceBucketName(target.bucket()).withSourceKey(from)
                .withDestinationBucketName(target.bucket()).withDestinationKey(to).withUploadId(upload).withPartNumber(i + 1)
                .withFirstByte(i * partBytes).withLastByte(Math.min(length, (i + 1) * partBytes) - 1)).getPartETag()).toList());
    }

    private String initiate(String key) {
        var request = new InitiateMultipartUploadRequest(target.bucket(), key, encrypted(new ObjectMetadata()));
        if (usesParameters()) {
            request.setSSEAwsKeyManagementParams(parameters());
        }
        return s3.initiateMultipartUpload(request).getUploadId();
    }

    private void complete(String key, String upload, List<PartETag> etags) {
        s3.completeMultipartUpload(new CompleteMultipartUploadRequest(target.bucket(), key, upload, new ArrayList<>(etags)));
    }

    @Override
    public URL presignGet(String key) {
        return s3.generatePresignedUrl(new GeneratePresignedUrlRequest(target.bucket(), key, HttpMethod.GET));
    }

    @Override
    public URL presignPut(String key) {
        return s3.generatePresignedUrl(new GeneratePresignedUrlRequest(target.bucket(), key, HttpMethod.PUT));
    }

    @Override
    public void delete(String key) {
        s3.deleteObject(target.bucket(), key);
    }

    @Override
    public void deleteAll(List<String> keys) {
        s3.deleteObjects(new DeleteObjectsRequest(target.bucket()).withKeys(keys.toArray(String[]::new)));
    }

    @Override
    public String codeOfMissing(String key) {
        try {
            s3.getObject(target.bucket(), key).close();
            return null;
        } catch (AmazonS3Exception error) {
            return error.getErrorCode();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** Chunks that are signed on HTTPS too; and what the SDK itself refuses on plain HTTP, before a packet leaves. */
    @Override
    public void own(String prefix) {
        AmazonS3 signing = client(target, true);
        byte[] body = Course.body(prefix, 200_000);
        put(signing, prefix + "signed chunks", body, "application/octet-stream", Map.of());
        Course.same("what went up in signed chunks", body, get(prefix + "signed chunks"));
        signing.shutdown();
        if (target.isPlain() && target.asksForKms()) {
            var request = new PutObjectRequest(target.bucket(), prefix + "refused", new ByteArrayInputStream(body), new ObjectMetadata());
            try {
                s3.putObject(request.withSSEAwsKeyManagementParams(parameters()));
                throw new AssertionError("SDK v1 has asked for SSE-KMS on plain HTTP");
            } catch (IllegalArgumentException expected) {
                Course.equal("its words", true, expected.getMessage().startsWith("HTTPS must be used"));
            }
        }
    }

    @Override
    public void close() {
        s3.shutdown();
    }

    private boolean usesParameters() {
        return target.asksForKms() && !target.isPlain();
    }

    private SSEAwsKeyManagementParams parameters() {
        return target.keyId() == null ? new SSEAwsKeyManagementParams() : new SSEAwsKeyManagementParams(target.keyId());
    }

    /** Encryption as headers, where it isn't asked for by parameters. */
    private ObjectMetadata encrypted(ObjectMetadata headers) {
        if (target.algorithm() != null && !usesParameters()) {
            headers.setSSEAlgorithm(target.algorithm());
            if (target.keyId() != null) {
                headers.setHeader(KEY_ID, target.keyId());
            }
        }
        return headers;
    }

    private static Sealed sealed(ObjectMetadata answer) {
        return new Sealed(answer.getSSEAlgorithm(), answer.getSSEAwsKmsKeyId());
    }

    private static byte[] read(S3Object object) {
        try (object) {
            return IOUtils.toByteArray(object.getObjectContent());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
