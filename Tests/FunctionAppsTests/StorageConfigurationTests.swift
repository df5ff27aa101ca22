import FunctionApps
import Invocations
import Testing

@Suite struct BlobPathPatternTests {
    @Test(arguments: [
        ("incoming/{name}", "a/b/c.json", "name=a/b/c.json"),
        ("incoming/{name}.{ext}", "foo.alpha.beta.csv", "name=foo.alpha.beta,ext=csv"),
        ("incoming/{name}.csv", "foo.alpha.csv", "name=foo.alpha"),
        ("incoming/{date}-{seq}/{rest}", "2026-01-31-7/x/y", "date=2026-01-31,seq=7/x,rest=y"),
        ("incoming/{{20140101}}-{name}", "{20140101}-soundfile.mp3", "name=soundfile.mp3"),
        ("incoming", "any/thing", ""), ("incoming/exact.json", "exact.json", ""),
        ("INCOMING/{name}", "x", "name=x"), ("incoming/{a}{b}", "xy", "a=xy,b="),
        ("incoming/{name}", "line\nend", "name=line\nend"),
        ("incoming/x{name}x", "xx", "name="),
    ])
    func `a name that matches gives its parts`(pattern: String, name: String, expected: String) throws {
        let found = try BlobPathPattern(pattern).match(container: "incoming", name: name)
        #expect(found?.map { "\($0.name)=\($0.value)" }.joined(separator: ",") == expected)
    }

    @Test(arguments: [
        ("incoming/{name}.txt", "bob.txtoutput"), ("incoming/exact.json", "Exact.json"), ("other/{name}", "x"),
        ("incoming/{a}-{b}-{c}", "one-two"), ("incoming/x{name}x", "x"), ("Incoming", "x"),
        ("incoming/a{name}b{rest}c", "acb"),
    ])
    func `a name that does not match gives nothing`(pattern: String, name: String) throws {
        #expect(try BlobPathPattern(pattern).match(container: "incoming", name: name) == nil)
    }

    @Test(arguments: [
        ("", "Invalid blob trigger path ''. Paths must be in the format 'container/blob'."),
        ("/", "Invalid blob trigger path '/'. Paths must be in the format 'container/blob'."),
        ("incoming/", "Invalid blob trigger path 'incoming/'. Paths must be in the format 'container/blob'."),
        ("a\\b", "Invalid blob trigger path 'a\\b'. Paths must be in the format 'container/blob'."),
        ("con{x}/blob", "Invalid blob trigger path 'con{x}/blob'. Container paths cannot contain {resolve} tokens."),
        ("incoming/{}", "Invalid template '{}'. The parameter name at position 1 is empty."),
        ("incoming/{name", "Invalid template '{name'. Missing closing bracket at position 1."),
        ("incoming/{a.b}", "Invalid template '{a.b}'. The parameter name 'a.b' is invalid."),
        ("no/{x}", "Invalid container name: no"), ("two--hyphens/{x}", "Invalid container name: two--hyphens"),
    ])
    func `mistakes have the storage extension's words`(pattern: String, message: String) {
        #expect(throws: BindingTemplateError(message)) { try BlobPathPattern(pattern) }
    }

    @Test func `a long name against many captures takes no time`() throws {
        let pattern = try BlobPathPattern("incoming/" + (0..<30).map { "{p\($0)}a" }.joined())
        #expect(pattern.match(container: "incoming", name: String(repeating: "a", count: 1000) + "b") == nil)
    }

    @Test func `container names keep the service's rules`() {
        for name in ["abc", "a-b-c", "$root", "$web", String(repeating: "a", count: 63)] {
            #expect(isContainerName(name))
        }
        for name in ["ab", "-abc", "abc-", "a--b", "Abc", "a_b", "$other", "", String(repeating: "a", count: 64)] {
            #expect(!isContainerName(name))
        }
        for name in ["a", "a/b", "ünï/c ode", "x\ny", String(repeating: "a", count: 255)] { #expect(isBlobName(name)) }
        for name in ["", "/a", "a/", "a//b", "a/../b", ".", "a.", "a\\b", String(repeating: "a", count: 256)] {
            #expect(!isBlobName(name))
        }
    }
}

@Suite struct StorageConnectionTests {
    @Test func `the development account is the folder`() throws {
        #expect(try StorageConnection("UseDevelopmentStorage=true") == .embedded)
        let proxy = try StorageConnection("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://10.0.0.1")
        #expect(proxy.blobEndpoint == "http://10.0.0.1:10000/devstoreaccount1")
        #expect(!proxy.isEmbedded)
    }

    @Test func `accounts have endpoints by name or by URL`() throws {
        let cloud = try StorageConnection(
            "DefaultEndpointsProtocol=https;AccountName=mine;AccountKey=a2V5;EndpointSuffix=core.windows.net")
        #expect(cloud.blobEndpoint == "https://mine.blob.core.windows.net")
        #expect(cloud.queueEndpoint == "https://mine.queue.core.windows.net")
        #expect(cloud.credential == .sharedKey(Array("key".utf8)))
        let local = try StorageConnection("BlobEndpoint=http://127.0.0.1:10000/dev/;SharedAccessSignature=?sv=1&sig=x")
        #expect(local.blobEndpoint == "http://127.0.0.1:10000/dev")
        #expect(local.accountName == "dev")
        #expect(local.credential == .signature("sv=1&sig=x"))
    }

    @Test(arguments: [
        "", "nonsense", "AccountName=a;AccountKey=%%%", "AccountKey=a2V5", "=x", "AccountName=a;AccountName=b",
        "DefaultEndpointsProtocol=ftp;AccountName=a", "BlobEndpoint=localhost", "UseDevelopmentStorage=false",
        "Colour=red;AccountName=a",
    ])
    func `what is no connection string is refused`(text: String) {
        #expect(throws: StorageConnection.Invalid.self) { try StorageConnection(text) }
    }

    @Test func `a missing setting is named, a pasted secret is not`() throws {
        let settings = AppSettings(environment: ["Mine": "AccountName=x;AccountKey=@@@"])
        #expect(try StorageConnection.resolve(nil, settings: settings) == .embedded)
        do throws(StorageConnection.Problem) {
            _ = try StorageConnection.resolve("Missing", settings: settings)
        } catch {
            #expect(
                error.message
                    == "Storage account connection string 'Missing' does not exist. Make sure that it is a defined App Setting."
            )
        }
        do throws(StorageConnection.Problem) {
            _ = try StorageConnection.resolve("AccountName=a;AccountKey=c2VjcmV0", settings: settings)
        } catch {
            #expect(!"\(error)".contains("c2VjcmV0"))
        }
        do throws(StorageConnection.Problem) {
            _ = try StorageConnection.resolve("Mine", settings: settings)
        } catch {
            #expect(
                error.message == "Storage account connection string for 'Mine' is invalid: AccountKey is not Base64")
        }
    }

    @Test func `Base64 goes both ways`() {
        for length in 0..<20 {
            let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 * 53 + 7) }
            #expect(decodeBase64(encodeBase64(bytes)) == bytes)
        }
        for text in ["a", "a===", "ab=c", "ab$d"] { #expect(decodeBase64(text) == nil) }
    }
}

@Suite struct BlobsConfigurationTests {
    /// The table of the storage extension's own test (SharedBlobQueueListenerFactoryTests).
    @Test(arguments: [
        (100, 32, 68), (64, 32, 32), (63, 32, 31), (62, 32, 30), (16, 9, 7), (3, 2, 1), (2, 2, 0), (1, 1, 0),
    ])
    func `batches are derived from the degree of parallelism`(degree: Int, batch: Int, threshold: Int) {
        var blobs = BlobsConfiguration()
        blobs.maxDegreeOfParallelism = degree
        #expect(blobs.batchSize == batch)
        #expect(blobs.newBatchThreshold == threshold)
    }
}
