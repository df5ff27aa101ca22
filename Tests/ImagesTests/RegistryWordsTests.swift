import Testing

@testable import Images

@Suite struct RegistryWordsTests {
    @Test func `a challenge is read, commas in quotes included`() throws {
        let header =
            "Bearer realm=\"https://R/oauth2/token\",service=\"R\",scope=\"repository:package:pull,push\",error=\"invalid_token\""
        let challenge = try #require(RegistryChallenge(header))
        #expect(challenge.scheme == "bearer")
        #expect(challenge["realm"] == "https://R/oauth2/token")
        #expect(challenge["scope"] == "repository:package:pull,push")
        #expect(challenge["error"] == "invalid_token")
        #expect(RegistryChallenge("Basic realm=basic-realm")?["realm"] == "basic-realm")
        #expect(RegistryChallenge("Negotiate")?.scheme == "negotiate")
        #expect(RegistryChallenge("") == nil)
    }

    @Test func `Retry-After is seconds or a date`() {
        #expect(parseRetryAfter("120") == .seconds(120))
        #expect(parseRetryAfter("Sun, 06 Nov 1994 08:49:37 GMT", now: 784_111_770) == .seconds(7))
        #expect(parseRetryAfter("Sun, 06 Nov 1994 08:49:37 GMT", now: 784_111_790) == .zero)
        #expect(parseRetryAfter("soon") == nil)
        #expect(parseRetryAfter("-1") == nil)
    }

    @Test func `attempts end, unless something comes through`() {
        var policy = RetryPolicy()
        for _ in 1..<RetryPolicy.attemptLimit { #expect(policy.nextDelay(asked: nil) != nil) }
        #expect(policy.nextDelay(asked: nil) == nil)
        policy.progressed()
        #expect(policy.nextDelay(asked: .seconds(3)) == .seconds(3))
    }

    @Test(arguments: [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")])
    func `base64 is that of RFC 4648`(plain: String, encoded: String) {
        #expect(encodeBase64(Array(plain.utf8)) == encoded)
        #expect(decodeBase64(encoded) == Array(plain.utf8))
    }

    @Test func `credentials go to the registry they are for, and nowhere else`() {
        let mine = RegistryAccess.choose(
            for: "a.io", serverURL: "https://a.io/v1/", username: "u", passwords: ["p", ""], environment: [:])
        #expect(mine.credentials == RegistryCredentials(username: "u", passwords: ["p"]))
        #expect(mine.scheme == "https")
        let other = RegistryAccess.choose(
            for: "b.io", serverURL: "https://a.io", username: "u", passwords: ["p"], environment: [:])
        #expect(other.credentials == nil)
        #expect(!"\(RegistryCredentials(username: "u", passwords: ["geheim"]))".contains("geheim"))
    }

    @Test func `only this machine is loopback`() {
        for host in ["localhost:5000", "127.0.0.1", "127.1.2.3:5", "[::1]:5000"] { #expect(isLoopback(host)) }
        for host in ["localhost.evil.io", "127.0.0.1.evil.io", "10.0.0.1", "[::2]"] { #expect(!isLoopback(host)) }
    }

    @Test func `errors of a registry are read, and other bodies give nothing`() {
        let body = #"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#
        let (codes, text) = registryErrors(Array(body.utf8))
        #expect(codes == ["MANIFEST_UNKNOWN"])
        #expect(text == "manifest unknown (tag x)")
        #expect(registryErrors(Array("<html>".utf8)).text == "")
    }
}
