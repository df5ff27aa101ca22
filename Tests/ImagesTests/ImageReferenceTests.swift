import Testing

@testable import Images

@Suite struct ImageReferenceTests {
    static let hex = "86e0e091d0da6bde2456dbb48306f3956bbeb2eae1b5b9a43045843f69fe4aaa"

    /// Domain, repository and tag by the tables of the reference implementation (reference_test.go, normalize_test.go).
    @Test(arguments: [
        ("test.com/foo", "test.com", "foo", "latest"),
        ("test:5000/repo", "test:5000", "repo", "latest"),
        ("test:5000/repo:tag", "test:5000", "repo", "tag"),
        ("lowercase:Uppercase", "docker.io", "library/lowercase", "Uppercase"),
        ("a", "docker.io", "library/a", "latest"),
        ("docker/docker", "docker.io", "docker/docker", "latest"),
        ("index.docker.io/library/foo", "docker.io", "library/foo", "latest"),
        ("docker.io/foo", "docker.io", "library/foo", "latest"),
        ("localhost/foo", "localhost", "foo", "latest"),
        ("127.0.0.1:5000/docker/docker", "127.0.0.1:5000", "docker/docker", "latest"),
        ("[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000", "repo", "tag"),
        ("a/a/a/a", "docker.io", "a/a/a/a", "latest"),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", "xn--n3h.com"),
        ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", "8080"),
        (
            "b.gcr.io/test.example.com/my-app:test.example.com", "b.gcr.io", "test.example.com/my-app",
            "test.example.com"
        ),
        ("foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", "8080"),
        ("DOCKER|acr.azurecr.io/package:20190827195524", "acr.azurecr.io", "package", "20190827195524"),
        ("https://acr.azurecr.io/package:1", "acr.azurecr.io", "package", "1"),
        ("MyRegistry.azurecr.io/package:1", "MyRegistry.azurecr.io", "package", "1"),
    ]) func `a name is taken apart`(name: String, domain: String, repository: String, tag: String) throws {
        let reference = try ImageReference(name)
        #expect(reference.domain == domain)
        #expect(reference.repository == repository)
        #expect(reference.tag == tag)
    }

    @Test func `a digest wins over a tag`() throws {
        let reference = try ImageReference("test:5000/repo:tag@sha256:\(Self.hex)")
        #expect(reference.tag == "tag")
        #expect(reference.identifier == "sha256:\(Self.hex)")
        #expect(try ImageReference("test:5000/repo@sha256:\(Self.hex)").tag == nil)
    }

    @Test(arguments: [
        ("", "at least one component"), (":justtag", "invalid reference format"),
        ("@sha256:\(hex)", "invalid reference format"), ("repo@sha256:ffff", "invalid reference format"),
        ("validname@invalidDigest:\(hex)", "unsupported digest algorithm"), ("Uppercase:tag", "must be lowercase"),
        ("test:5000/Uppercase/lowercase:tag", "must be lowercase"), ("a//b", "invalid reference format"),
        ("aa/asdf$$^/aa", "invalid reference format"), ("-test/repo", "invalid reference format"),
        ("repo_:tag", "invalid reference format"), (hex, "cannot specify 64-byte hexadecimal"),
        ("repo@sha256:\(hex)00", "invalid checksum digest length"), ("test.com/", "at least one component"),
        ("[fe80::1%eth0]:5000/repo", "invalid reference format"), ("foo/foo..bar", "invalid reference format"),
        ("a___b", "invalid reference format"),
    ]) func `what is no name says why`(name: String, reason: String) {
        #expect { try ImageReference(name) } throws: { error in
            let error = error as? ImageError
            return error?.code == "AN9001" && error?.reason.contains(reason) == true
        }
    }

    @Test func `the longest repository is taken, and one more is not`() throws {
        let longest = String(repeating: "a", count: ImageReference.repositoryByteLimit)
        #expect(try ImageReference("r.io/\(longest)").repository == longest)
        #expect(throws: ImageError.self) { try ImageReference("r.io/\(longest)a") }
    }

    @Test func `a digest written as a tag gets a hint, and so does a registry that stands twice`() throws {
        let hint = try ImageReference("acr.io/package:\(Self.hex)").tagHint
        #expect(hint?.contains("acr.io/package@sha256:\(Self.hex)") == true)
        #expect(try ImageReference("acr.io/acr.io/package:1").domainHint != nil)
        #expect(try ImageReference("acr.io/package:1").domainHint == nil)
    }
}
