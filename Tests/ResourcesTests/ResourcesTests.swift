import HostTestSupport
import JSONText
import Testing

@testable import Resources

@Suite struct ResourcesTests {
    @Test(arguments: [
        (ResourceKind.registry, "abcde"), (.registry, String(repeating: "a", count: 50)), (.storageAccount, "abc"),
        (.storageAccount, String(repeating: "1", count: 24)), (.redis, "a"), (.redis, "my-cache-1"),
        (.redis, String(repeating: "a", count: 63)), (.functionApp, "my-app"),
        (.group, "my group".replacing(" ", with: "_")),
        (.group, String(repeating: "g", count: 90)), (.model, "sklearn_mnist"), (.plan, "p"),
    ]) func `names by the rules are taken`(kind: ResourceKind, name: String) throws {
        try kind.check(name)
    }

    @Test(arguments: [
        (ResourceKind.registry, "abcd", "between 5 and 50"),
        (.registry, String(repeating: "a", count: 51), "between 5 and 50"),
        (.registry, "my-registry", "alpha numeric"), (.storageAccount, "ab", "between 3 and 24"),
        (.storageAccount, String(repeating: "a", count: 25), "between 3 and 24"),
        (.storageAccount, "Abc", "lower-case"),
        (.redis, "", "1 to 63"), (.redis, String(repeating: "a", count: 64), "1 to 63"),
        (.redis, "-a", "start and end"),
        (.redis, "a-", "start and end"), (.redis, "a--b", "consecutive"), (.redis, "a_b", "only letters"),
        (.functionApp, "a", "2 to 60"), (.functionApp, "-app", "begin or end"), (.group, "g.", "end with a period"),
        (.group, String(repeating: "g", count: 91), "1 to 90"), (.group, "a b", "may contain"),
        (.model, "_x", "begins with"),
    ]) func `a name that breaks a rule is told which`(kind: ResourceKind, name: String, rule: String) {
        #expect { try kind.check(name) } throws: { error in
            let error = error as? ResourceError
            return error?.code == "AN9020" && error?.message.contains(rule) == true
        }
    }

    static let sample = JSONValue.record([
        "name": .text("a"), "list": .list([["k": .text("x"), "n": .number(1)], ["k": .text("y"), "n": .number(2)]]),
        "deep": ["er": .text("d")], "flag": .flag(true),
    ])

    @Test(arguments: [
        ("name", "a"), ("list[0].k", "x"), ("list[-1].n", "2"), ("list[].k", "x\ny"), ("deep.er", "d"),
        ("{a:name, d:deep.er}", "a\td"), ("list[?k=='y'].n", "2"), ("[name, deep.er]", "a\nd"), ("nothing", ""),
        ("list[].{k:k, n:n}", "x\t1\ny\t2"), ("flag", "True"), ("list[9]", ""), ("\"name\"", "a"),
    ]) func `queries find what JMESPath finds`(query: String, expected: String) throws {
        let found = try #require(ResourceQuery(query)).apply(Self.sample)
        #expect(String(decoding: resourceTSV(found), as: UTF8.self) == (expected.isEmpty ? "" : expected + "\n"))
    }

    @Test(arguments: [
        "", "a.", "[", "a[", "{a}", "a b", "[?x]", "a[1", "length(@)", String(repeating: "[", count: 500),
    ])
    func `what is no query is refused`(query: String) { #expect(ResourceQuery(query) == nil) }

    @Test func `the longest query is taken, and one more is not`() {
        #expect(ResourceQuery(String(repeating: "a", count: ResourceQuery.lengthLimit)) != nil)
        #expect(ResourceQuery(String(repeating: "a", count: ResourceQuery.lengthLimit + 1)) == nil)
    }

    @Test func `a table has a column for what is simple`() {
        let table = String(
            decoding: resourceTable(.list([["name": .text("long name"), "n": .number(1), "x": .list([])]])),
            as: UTF8.self)
        #expect(table == "Name       N\n---------  -\nlong name  1\n")
    }

    @Test func `settings are split at the first equals sign, or are JSON`() throws {
        let found = try parseSettings([
            "A=1=2", #"{"B":"x","C":true}"#, #"[{"name":"D","value":"4","slotSetting":false}]"#,
        ])
        #expect(found.map { "\($0.0)=\($0.1)" } == ["A=1=2", "B=x", "C=true", "D=4"])
        #expect { try parseSettings(["novalue"]) } throws: {
            ($0 as? ResourceError)?.message
                == "Invalid setting format: 'novalue'. Expected 'key=value' format or valid JSON."
        }
    }

    @Test func `an image gets its prefix and loses its scheme`() {
        #expect(linuxFxVersion("acr.io/package:1") == "DOCKER|acr.io/package:1")
        #expect(linuxFxVersion("docker|acr.io/package:1") == "docker|acr.io/package:1")
        #expect(linuxFxVersion("https://ACR.io/package:1") == "DOCKER|acr.io/package:1")
        #expect(linuxFxVersion(" ") == " ")
    }

    @Test func `resources are kept, and an error changes nothing`() throws {
        let folder = TemporaryFolder()
        let store = ResourceStore(folder: folder.path + "/state")
        try store.update { document throws(ResourceError) in
            document.put(.group, NewResource.group("rg", location: "here"))
        }
        #expect(try store.read().find(.group, "RG")["location"]?.string == "here")
        #expect(throws: ResourceError.self) {
            try store.update { document throws(ResourceError) in
                document.put(.group, NewResource.group("other", location: "here"))
                throw ResourceError.exists("x")
            }
        }
        #expect(try store.read().all(.group).count == 1)
        folder.write("state/resources.json", "{")
        #expect(throws: ResourceError.self) { try store.read() }
    }

    @Test func `models get versions, and the newest is meant`() throws {
        let folder = TemporaryFolder()
        let store = ResourceStore(folder: folder.path + "/state")
        let file = folder.write("m.pkl", "one")
        for _ in 1...2 {
            _ = try store.registerModel(
                "m", path: file, tags: [("a", "b")], properties: [], description: nil, framework: nil)
        }
        let reference = try #require(ModelReference("m"))
        #expect(try store.model(reference)["id"]?.string == "m:2")
        #expect(try store.model(#require(ModelReference("m:1")))["version"]?.integer == 1)
        #expect(throws: ResourceError.self) { try store.model(#require(ModelReference("m:3"))) }
        #expect(try store.deleteModel(reference) == 2)
        #expect(ModelReference("m:x") == nil && ModelReference("m:1:2") == nil)
    }

    @Test func `passwords are null wherever settings are listed`() throws {
        let folder = TemporaryFolder()
        let file = AppSettingsFile(folder: folder.path)
        try file.change(set: [
            ("DOCKER_REGISTRY_SERVER_PASSWORD", "geheim"), ("A", "1"), ("DOCKER_CUSTOM_IMAGE_NAME", "r.io/p:1"),
        ])
        var writer = JSONWriter()
        writer.value(try file.list(slotSettings: ["A"]))
        writer.value(try file.container(slotSettings: []))
        let text = String(decoding: writer.bytes, as: UTF8.self)
        #expect(!text.contains("geheim"))
        #expect(text.contains(#"{"name":"A","slotSetting":true,"value":"1"}"#))
        #expect(text.contains(#"{"name":"DOCKER_CUSTOM_IMAGE_NAME","value":"DOCKER|r.io/p:1"}"#))
    }
}
