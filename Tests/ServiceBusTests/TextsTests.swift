/// The broker's texts: conditions, durations, tokens, connection strings, XML.
@testable import ServiceBus
import Testing

@Suite struct TextsTests {
    static let values: [String: FilterValue] = [
        "color": .text("red"), "count": .integer(7), "half": .number(0.5), "sys.label": .text("a_b%c"),
        "yes": .truth(true), "My Prop": .text("x"), "a.b": .integer(1), "bytes": .other, "when": .time(1000),
    ]
    private func value(_ property: SQLProperty) -> FilterValue {
        Self.values[(property.isSystem ? "sys." : "") + property.name] ?? .unknown
    }

    @Test(arguments: [
        ("color = 'red'", true), ("color <> 'red'", false), ("color='re' + 'd'", true),
        ("count > 6 AND count <= 7", true),
        ("count*2 = 14 and not (color = 'blue')", true), ("color LIKE 'r_d'", true), ("color like '%e%'", true),
        ("color NOT LIKE 'b%'", true), ("sys.Label LIKE 'a\\_b\\%c' ESCAPE '\\'", true),
        ("color IN ('blue', 'red')", true),
        ("color NOT IN ('blue')", true), ("missing IS NULL", true), ("color IS NOT NULL", true),
        ("EXISTS(missing)", false),
        ("EXISTS(color) OR 1=0", true), ("missing = 1", false), ("NOT (missing = 1)", false),
        ("missing = 1 OR yes", true),
        ("-count < 0", true), ("count / 0 = 1", false), ("[color] = 'red'", true), ("1=1", true), ("1=0", false),
        ("'it''s' = 'it''s'", true), ("count % 4 = 3", true), ("yes = TRUE", true),
        ("color LIKE '%%%%%%%%%%%%x'", false),
        // Names: scopes, brackets, quotes, dots.
        ("user.color = 'red'", true), ("[My Prop] = 'x'", true), ("user.\"My Prop\" = 'x'", true), ("a.b = 1", true),
        ("sys.[Label] <> ''", true), ("EXISTS(sys.Label)", true), ("EXISTS(sys.To)", false),
        ("p('color') = 'red'", true), ("property('My ' + 'Prop') = 'x'", true), ("p(count) = 1", false),
        // Numbers: whole, decimal, scientific, and C#'s promotions.
        ("count / 2 = 3", true), ("count / 2.0 = 3.5", true), ("1.5E1 = 15", true), ("5E-1 = half", true),
        ("count = 7.0", true), ("9223372036854775807 > 9223372036854775806", true), ("half < 1 AND half > -1", true),
        ("'a' + 1 = 'a1'", true), ("count = '7'", false), ("count <> '7'", true), ("count > 'a'", false),
        // What is there and cannot be compared; what is unknown.
        ("EXISTS(bytes)", true), ("bytes = bytes", false), ("missing IN (1)", false), ("NOT (missing IN (1))", false),
        ("missing LIKE 'x' OR missing IS NULL", true), ("count + missing = 1", false), ("NULL = NULL", false),
        ("newid() <> newid()", true), ("color LIKE 'r!%' ESCAPE '!'", false), ("color LIKE 'r%' ESCAPE ''", false),
    ]) func `a condition is true or not`(text: String, expected: Bool) throws {
        #expect(try SQLFilter(text).matches(value) == expected)
    }

    @Test func `parameters stand for values`() throws {
        let parameters: [String: FilterValue] = ["@color": .text("red"), "@When": .time(999)]
        #expect(try SQLFilter("color = @Color AND when > @when", parameters: parameters).matches(value))
        let error = #expect(throws: SQLFilter.SyntaxError.self) {
            try SQLFilter("color = @other", parameters: parameters)
        }
        #expect(error?.reason == "the parameter '@other' has no value")
    }

    @Test(arguments: [
        ("", "a value was expected at the end"), ("color =", "a value was expected at the end"),
        ("= 1", "a property was expected in place of '='"),
        ("color = 'x", "''' is missing at the end of a quotation"),
        ("(1=1", "')' was expected in place of the end"), ("1=1)", "')' was not expected"),
        ("color LIKE", "a value was expected at the end"), ("color IN ()", "a property was expected in place of ')'"),
        ("a NOT b", "LIKE or IN was expected after NOT"), ("a IS 1", "NULL was expected after IS"),
        ("a ; b", "';' was not expected"), ("[a", "']' is missing at the end of a quotation"),
        ("a ? b", "'?' was not expected"), ("sys.Colour = 1", "a message has no property 'sys.Colour'"),
        ("upper(color) = 'RED'", "there is no function 'upper'; there are newid, property and p"),
        ("12abc = 1", "'12a' is no number"),
        ("9223372036854775808 = 1", "'9223372036854775808' is no number of 64 bits"),
        ("like = 1", "a value was expected in place of 'like'; a property of that name stands in brackets"),
        ("EXISTS(1)", "a property was expected in place of 1"),
    ]) func `what is no condition is refused in words`(text: String, reason: String) {
        #expect(throws: SQLFilter.SyntaxError(reason: reason)) { try SQLFilter(text) }
    }

    @Test func `actions are statements, with or without signs between them`() throws {
        let action = try SQLAction("SET a = 1; REMOVE [b c], SET sys.To = 'x' + color REMOVE user.d;")
        #expect(action.statements.map(\.property.name) == ["a", "b c", "to", "d"])
        #expect(action.statements.map { $0.value == nil } == [false, true, false, true])
        #expect(action.statements[2].value?.value(value) == .text("xred"))
    }

    @Test(arguments: [
        ("", "the action has no statement"), ("SET a", "'=' was expected in place of the end"),
        ("a = 1", "SET or REMOVE was expected in place of 'a'"), ("REMOVE", "a property was expected at the end"),
        ("SET sys.SequenceNumber = 1", "'sys.sequencenumber' cannot be changed"),
        ("REMOVE sys.Nothing", "a message has no property 'sys.Nothing'"),
        (String(repeating: "SET a=1;", count: SQLAction.statementLimit + 1), "the action has more than 32 statements"),
    ]) func `what is no action is refused in words`(text: String, reason: String) {
        #expect(throws: SQLFilter.SyntaxError(reason: reason)) { try SQLAction(text) }
    }

    @Test func `conditions end at their limits`() throws {
        let nested = { (depth: Int) in
            String(repeating: "(", count: depth) + "1=1" + String(repeating: ")", count: depth)
        }
        _ = try SQLFilter(nested(SQLFilter.depthLimit - 1))
        #expect(throws: SQLFilter.SyntaxError.self) { try SQLFilter(nested(SQLFilter.depthLimit)) }
        let long = "1=1" + String(repeating: " ", count: SQLFilter.characterLimit - 3)
        _ = try SQLFilter(long)
        #expect(throws: SQLFilter.SyntaxError.self) { try SQLFilter(long + " ") }
    }

    @Test(
        arguments: [
            ("PT1M", 60_000), ("P1DT2H3M4.5S", 93_784_500), ("PT0S", 0), ("P7D", 604_800_000),
            ("P10675199DT2H48M5.4775807S", 922_337_203_685_478),
        ] as [(String, Int64)]) func `durations are read`(text: String, milliseconds: Int64)
    {
        #expect(ISODuration.milliseconds(text) == milliseconds)
    }

    @Test(arguments: [0, 1, 1000, 60_000, 3_600_000, 86_400_000, 93_784_500, QueueSettings.forever] as [Int64])
    func `durations come back`(milliseconds: Int64) {
        let back = ISODuration.milliseconds(ISODuration.text(milliseconds)) ?? -1
        #expect(min(back, QueueSettings.forever) == milliseconds)
    }

    @Test(arguments: ["", "P", "1M", "PT1", "PTM", "P1Y", "P1M", "PT1H1H?", "PT1.2.3S"])
    func `what is no duration is refused`(text: String) { #expect(ISODuration.milliseconds(text) == nil) }

    @Test func `a token holds for its key, its time and its bytes`() {
        let token = SharedAccessSignature.make(audience: "sb://host/q", keyName: "n", key: "secret", expiry: 2000)
        let check = { (token: String, now: Int64) in
            (try? SharedAccessSignature.check(token, keys: ["n": "secret"], now: now).get())?.audience
        }
        #expect(check(token, 1_999_999) == "sb://host/q")
        #expect(check(token, 2_000_000) == nil)
        #expect(check(token.replacing("sr=sb", with: "sr=xb"), 0) == nil)
        #expect(check(token.replacing("skn=n", with: "skn=m"), 0) == nil)
        #expect(check("Bearer x", 0) == nil && check("", 0) == nil && check("SharedAccessSignature sr=%zz", 0) == nil)
    }

    @Test func `connection strings are read in any order and case`() throws {
        let azure = try BrokerAddress(
            "sharedaccesskey=a=b=;Endpoint=sb://x.servicebus.windows.net/;SHAREDACCESSKEYNAME=n;EntityPath=q",
            setting: "S")
        #expect(azure.host == "x.servicebus.windows.net" && azure.usesTLS && azure.dialledPort == 5671)
        #expect(azure.user == "n" && azure.password == "a=b=" && azure.entityPath == "q" && !azure.isEmbedded)
        let emulator = try BrokerAddress("Endpoint=sb://localhost:5690;UseDevelopmentEmulator=true;", setting: "S")
        #expect(emulator.isEmbedded && emulator.dialledPort == 5690 && !emulator.usesTLS)
        let rabbit = try BrokerAddress("amqp://us%40er:p%3Aw@[::1]:5673", setting: "S")
        #expect(rabbit.kind == .plain && rabbit.user == "us@er" && rabbit.password == "p:w" && rabbit.host == "::1")
        for wrong in [
            "", "Endpoint=x", "Endpoint=sb://h", "Endpoint=sb://h:99999;UseDevelopmentEmulator=true", "nonsense",
        ] {
            #expect(throws: ServiceBusError.self) { try BrokerAddress(wrong, setting: "S") }
        }
    }

    @Test func `addresses come in many clothes`() {
        #expect(EntityPath("amqps://localhost/queue.1") == EntityPath("/queue.1/"))
        #expect(EntityPath("$CBS").node == .claims)
        #expect(EntityPath("sb://h/q/$DeadLetterQueue/$management").node == .management)
        #expect(EntityPath("sb://h/q/$DeadLetterQueue/$management").entity == "q/$DeadLetterQueue")
    }

    @Test(
        arguments: [
            ("2026-11-21T09:00:00Z", 1_795_251_600_000), ("2026-11-21T09:00:00.25Z", 1_795_251_600_250),
            ("2026-11-21T10:00:00+01:00", 1_795_251_600_000), ("2026-11-21 09:00:00", 1_795_251_600_000),
            ("2026-13-21T09:00:00Z", nil), ("2026-11-21", nil), ("2026-11-21T09:00:00Zx", nil), ("yesterday", nil),
        ] as [(String, Int64?)]) func `times of the Atom documents are read`(text: String, milliseconds: Int64?)
    {
        #expect(HTTPDate.milliseconds(text) == milliseconds)
    }

    @Test func `paths of the administration name entities, lists and rules`() {
        #expect(AdministrationTarget("a/b") == .entity("a/b"))
        #expect(AdministrationTarget("$Resources/Topics") == .topics)
        #expect(AdministrationTarget("t/Subscriptions") == .subscriptions(topic: "t"))
        #expect(AdministrationTarget("a/t/subscriptions/s") == .subscription(topic: "a/t", "s"))
        #expect(AdministrationTarget("t/subscriptions/s/rules") == .rules(topic: "t", subscription: "s"))
        let rule = AdministrationTarget("t/subscriptions/s/rules/$Default")
        #expect(rule == .rule(topic: "t", subscription: "s", "$Default"))
        #expect(AdministrationTarget("") == nil && AdministrationTarget("t/subscriptions/s/other/x") == nil)
    }

    @Test func `XML is read, and its traps are not`() throws {
        let node = try XMLNode.parse(
            Array("<?xml version='1.0'?><a:b x='1'><c>1 &lt; 2<![CDATA[<]]></c><d/></a:b>".utf8))
        #expect(node.name == "b" && node["c"]?.text == "1 < 2<" && node["d"]?.text == "")
        #expect(node.attributes == ["x": "1"])
        #expect(try XMLNode.parse(Array("<f i:type='d:&quot;S'/>".utf8)).attributes == ["type": "d:\"S"])
        for wrong in ["", "<a>", "<a></b>", "<!DOCTYPE a><a/>", "<a>&x;</a>", "<a b></a>", "<a/><b/>", "<a"] {
            #expect(throws: XMLNode.SyntaxError.self) { try XMLNode.parse(Array(wrong.utf8)) }
        }
        let deep = { (count: Int) in
            Array((String(repeating: "<a>", count: count) + String(repeating: "</a>", count: count)).utf8)
        }
        _ = try XMLNode.parse(deep(XMLNode.depthLimit))
        #expect(throws: XMLNode.SyntaxError.self) { try XMLNode.parse(deep(XMLNode.depthLimit + 1)) }
    }
}
