/**
 * One place to test: a line of tab-separated words on standard input, with "-" for what is not there.
 *
 * @param name how the result names it
 * @param endpoint URL of the server, with its scheme
 * @param bucket an existing bucket
 * @param prefix below which nobody else writes
 * @param algorithm what the client asks for: aws:kms, AES256 or nothing
 * @param keyId the key that it names with aws:kms, or nothing
 * @param seenAlgorithm what answers have to report
 * @param seenKeyId the key that answers to PUT have to report, alone or at the end of an ARN
 * @param headTellsKey whether answers to HEAD report it as well; those of plain listeners of a proxy don't
 */
record Target(
        String name, String endpoint, String bucket, String prefix, String algorithm, String keyId,
        String seenAlgorithm, String seenKeyId, boolean headTellsKey) {

    static Target parse(String line) {
        String[] words = line.split("\t");
        if (words.length != 9) {
            throw new IllegalArgumentException("nine words make a target, not " + words.length + ": " + line);
        }
        for (int i = 0; i < words.length; i++) {
            words[i] = words[i].equals("-") ? null : words[i];
        }
        return new Target(words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7], words[8].equals("yes"));
    }

    boolean isPlain() {
        return endpoint.startsWith("http://");
    }

    boolean asksForKms() {
        return "aws:kms".equals(algorithm);
    }
}
