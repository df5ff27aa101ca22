import ConfigurationFiles
import Diagnostics
import EventLoops
import FunctionApps
import HostTestSupport
import Invocations
import Testing

private let good = #"{"bundle":"builtin:echo","bindings":[{"name":"req","type":"httpTrigger","direction":"in"}]}"#

private func load(
    _ folder: TemporaryFolder, _ environment: [String: String] = [:], only: [String]? = nil
) -> FunctionApp {
    FunctionApp.load(folder: folder.path, environment: environment, only: only)
}

@Suite struct FunctionAppTests {
    @Test func `functions are found beside host.json and in its functions folder, in name order`() {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0"}"#)
        folder.write("zeta/function.json", good)
        folder.write("functions/Beta/function.json", good)
        folder.write("functions/alpha/function.json", good)
        folder.write("functions/deep/er/function.json", good)
        let app = load(folder)
        #expect(app.functions.map(\.name) == ["alpha", "Beta", "zeta"])
        #expect(app.problems.isEmpty)
        #expect(app.functions[0].http?.authLevel == .function)
        #expect(app.functions[0].entryPoint == .echo)
    }

    @Test func `a broken function does not stop the others`() {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0"}"#)
        folder.write("Good/function.json", good)
        folder.write("Bad/function.json", "{\n  \"bindings\": [\n    { \"name\": \"a\" \"type\": \"x\" }\n  ]\n}")
        let app = load(folder)
        #expect(app.functions.map(\.name) == ["Good"])
        #expect(app.broken.map(\.name) == ["Bad"])
        #expect(!app.isHostBroken)
        #expect(app.problems.first?.place?.description == "Bad/function.json:3:19")
        #expect(app.problems.first?.place?.lineText == #"    { "name": "a" "type": "x" }"#)
    }

    @Test(arguments: [
        (#"{"bindings":[]}"#, "AN2007", "At least one binding must be declared."),
        (
            #"{"bindings":[{"type":"httpTrigger"}]}"#, "AN2007",
            "The binding name  is invalid. Please assign a valid name to the binding."
        ),
        (
            #"{"bindings":[{"name":"a_b","type":"httpTrigger"}]}"#, "AN2007",
            "The binding name a_b is invalid. Please assign a valid name to the binding."
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"http","direction":"out"}]}"#, "AN2007",
            "No trigger binding specified. A function must have a trigger input binding."
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger"},{"name":"b","type":"httpTrigger"}]}"#,
            "AN2007", "Multiple trigger bindings defined. A function can only have a single trigger binding."
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger"},{"name":"A","type":"http","direction":"out"}]}"#,
            "AN2007", "Multiple bindings with name 'A' discovered. Binding names must be unique."
        ),
        (#"{"bindings":[{"name":"a"}]}"#, "AN2007", "Binding 'a' is invalid. Bindings must specify a Type."),
        (
            #"{"bindings":[{"name":"a","type":"httpTrigger","direction":"inn"}]}"#, "AN2007",
            "'inn' is not a valid binding direction."
        ),
        (#"{"bindings":[{"name":"a","type":"http"}]}"#, "AN2007", "Http binding can only be used for output."),
        (
            #"{"bindings":[{"name":"a","type":"htpTrigger"}]}"#, "AN2007",
            "The binding type(s) 'htpTrigger' are not registered. Please ensure the type is correct and the binding extension is installed."
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger","authLevel":"public"}]}"#, "AN2007",
            "Error parsing function.json: Invalid value specified for binding property 'authLevel' of enum type AuthorizationLevel."
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger","route":"a b"}]}"#, "AN2008",
            "Route template cannot contain spaces. ('a b')"
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger","route":"a/{b"}]}"#, "AN2008",
            "Route template has an unmatched '{'. ('a/{b')"
        ),
        (
            #"{"bundle":"builtin:ecko","bindings":[{"name":"a","type":"httpTrigger"}]}"#, "AN2010",
            "'builtin:ecko' is not built in"
        ),
        (
            #"{"bundle":"%Nowhere%","bindings":[{"name":"a","type":"httpTrigger"}]}"#, "AN2009",
            "'%Nowhere%' does not resolve to a value."
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger","route":"administrators"}]}"#,
            "AN2011", "The specified route conflicts with one or more built in routes. ('administrators')"
        ),
        (
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger","methods":"get"}]}"#, "AN2003",
            "'methods' must be a list of strings and is 'get'"
        ),
        (
            #"{"bundle":"builtin:echo","retry":{"strategy":"fixedDelay"},"bindings":[{"name":"a","type":"httpTrigger"}]}"#,
            "AN2003", "'maxRetryCount' is required in 'retry'"
        ),
    ])
    func `mistakes are named in the Functions host's words`(text: String, code: String, message: String) {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0"}"#)
        folder.write("F/function.json", text)
        let app = load(folder)
        #expect(app.functions.isEmpty)
        #expect(app.problems.contains { $0.code == code && $0.message == message }, "\(app.problems.map(\.message))")
    }

    @Test func `unknown keys warn with the nearest known one and stop nothing`() {
        let folder = TemporaryFolder()
        folder.write(
            "host.json", "{\n  \"version\": \"2.0\",\n  \"extensions\": { \"http\": { \"routePrefx\": \"x\" } }\n}")
        folder.write(
            "F/function.json",
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger","metods":["get"]}]}"#)
        let app = load(folder)
        #expect(app.functions.count == 1)
        #expect(app.problems.map(\.remedy) == ["did you mean 'routePrefix'?", "did you mean 'methods'?"])
        #expect(app.problems[0].place?.description == "host.json:3:29")
        let allWarn = app.problems.allSatisfy(\.isWarning)
        #expect(allWarn)
    }

    @Test(arguments: [
        ("{", true), ("{}", false), (#"{"version":"1.0"}"#, true), (#"{"version":2}"#, true),
        (#"{"functions":["a"]}"#, true),
        (#"{"version":"2.0","functionTimeout":"5 minutes"}"#, true),
        (#"{"version":"2.0","functionTimeout":"-1"}"#, false),
        (#"{"version":"2.0","functionTimeout":"00:00:00.5"}"#, true), ("[]", true),
        (#"{"version":"2.0","extensions":{"http":{"maxConcurrentRequests":"many"}}}"#, true),
        (#"{"version":"2.0","inferenceCache":{"timeToLive":"00:00:00"}}"#, true),
        ("// c\n{\"version\":\"2.0\" /* x */}", false),
    ])
    func `a wrong host.json is told from a right one`(text: String, isBroken: Bool) {
        let folder = TemporaryFolder()
        folder.write("host.json", text)
        #expect(load(folder).isHostBroken == isBroken)
    }

    @Test func `the environment is laid over host.json`() {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0","extensions":{"http":{"routePrefix":"a"}}}"#)
        let app = load(
            folder,
            [
                "AzureFunctionsJobHost__Extensions__Http__RoutePrefix": "b",
                "AzureFunctionsJobHost__functions__0": "Only",
                "AzureFunctionsJobHost__extensions__http__maxConcurrentRequests": "7",
            ])
        #expect(app.configuration.http.routePrefix == "b")
        #expect(app.configuration.functions == ["Only"])
        #expect(app.configuration.http.maxConcurrentRequests == 7)
    }

    @Test func `settings come from the environment, then from local.settings.json`() {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0"}"#)
        folder.write(
            "local.settings.json",
            #"{"IsEncrypted":false,"Values":{"A":"file","B":"file","N":1,"O":{}},"Host":{"LocalHttpPort":7099,"CORS":"*"},"ConnectionStrings":{"Db":{"ConnectionString":"c"}}}"#
        )
        let app = load(folder, ["A": "environment"])
        #expect(app.settings["a"] == "environment")
        #expect(app.settings["B"] == "file")
        #expect(app.settings["N"] == "1")
        #expect(app.settings["ConnectionStrings:Db"] == "c")
        #expect(app.localHost.port == 7099)
        #expect(app.problems.map(\.code) == ["AN2003"])
        #expect(!app.isHostBroken)
    }

    @Test func `a function is disabled by a setting, and function.json's disabled only warns`() {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0"}"#)
        folder.write("F/function.json", good.replacing("{\"bundle\"", with: "{\"disabled\":true,\"bundle\""))
        #expect(!load(folder).functions[0].isDisabled)
        #expect(load(folder).problems.map(\.isWarning) == [true])
        #expect(load(folder, ["AzureWebJobs.F.Disabled": "TRUE"]).functions[0].isDisabled)
        #expect(load(folder, ["AzureWebJobs_F_Disabled": "1"]).functions[0].isDisabled)
    }

    @Test func `the second function with a route and a method is refused`() {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0"}"#)
        let function = { (methods: String) in
            #"{"bundle":"builtin:echo","bindings":[{"name":"a","type":"httpTrigger","route":"X","methods":[\#(methods)]}]}"#
        }
        folder.write("A/function.json", function("\"get\""))
        folder.write("B/function.json", function("\"post\""))
        folder.write("C/function.json", function("\"POST\""))
        let app = load(folder)
        #expect(app.functions.map(\.name) == ["A", "B"])
        #expect(
            app.problems.last?.message == "The route specified conflicts with the route defined by function 'B'. ('x')")
    }

    @Test func `a name asked for that does not exist is reported with the nearest`() {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version":"2.0"}"#)
        folder.write("Score/function.json", good)
        #expect(load(folder, only: ["Scor"]).problems.first?.remedy == "did you mean 'Score'?")
    }

    @Test(
        arguments: [
            ("00:05:00", Duration.seconds(300)), ("1.02:03:04.5", .milliseconds(93_784_500)), ("00:01", .seconds(60)),
            ("24:00:00", nil), ("x", nil), ("00:60:00", nil), ("5", nil),
        ] as [(String, Duration?)])
    func `time spans are .NET's`(text: String, duration: Duration?) {
        #expect(parseTimeSpan(text) == duration)
    }

    @Test func `percent signs are resolved once, or refused`() throws {
        var settings = AppSettings(environment: ["A": "%B%", "C": "c"])
        settings.set("D", "")
        #expect(try settings.expand("x%a%y%C%%D%", place: nil) == "x%B%yc")
        #expect(throws: ConfigurationProblem.self) { try settings.expand("50%", place: nil) }
        #expect(throws: ConfigurationProblem.self) { try settings.expand("%Z%", place: nil) }
    }
}

@Suite struct RetryPolicyTests {
    @Test func `delays follow the policy and end`() {
        let fixed = RetryPolicy.fixedDelay(count: 2, delay: .seconds(1))
        #expect((1...3).map { fixed.delay(beforeRetry: $0) } == [.seconds(1), .seconds(1), nil])
        let growing = RetryPolicy.exponentialBackoff(count: nil, minimum: .seconds(1), maximum: .seconds(5))
        #expect(
            (1...5).map { growing.delay(beforeRetry: $0) } == [
                .seconds(1), .seconds(2), .seconds(4), .seconds(5), .seconds(5),
            ])
    }
}

@Suite struct KeyStoreTests {
    @Test func `keys open what they are for, and nothing else`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let store = KeyStore(folder: folder.path + "/secrets")
            let master = try store.master()
            let host = try store.keys(.host)[0].value
            let own = try store.keys(.function("Score"))[0].value
            _ = try store.set(.system, name: "ext", value: "system-key")
            #expect(try store.level(of: master, function: "Score") == .admin)
            #expect(try store.level(of: host, function: "Score") == .function)
            #expect(try store.level(of: own, function: "score") == .function)
            #expect(try store.level(of: own, function: "Other") == nil)
            #expect(try store.level(of: "system-key", function: "Score") == .system)
            #expect(try store.level(of: "wrong", function: "Score") == nil)
            #expect(master.count == 56)
            #expect(master.contains("AzFu"))
            // Another store reads what this one wrote.
            let again = KeyStore(folder: folder.path + "/secrets")
            #expect(try again.master() == master)
            #expect(try again.level(of: own, function: "Score") == .function)
            #expect(try again.set(.function("Score"), name: "default", value: "new").isNew == false)
            #expect(try again.delete(.function("Score"), name: "default"))
            #expect(try again.delete(.function("Score"), name: "default") == false)
            #expect(try again.level(of: own, function: "Score") == nil)
        }
    }
}
