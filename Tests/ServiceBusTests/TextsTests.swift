/// The broker's texts: conditions, durations, tokens, connection strings, XML.
@testable import ServiceBus
import Testing

@Suite struct TextsTests {
    static let values: [String: FilterValue] = [
        "color": .text("red"), "count": .number(7), "sys.Label": .text("a_b%c"), "yes": .truth(true),
    ]

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
    ]) func `a condition is true or not`(text: String, expected: Bool) throws {
        #expect(try SQLFilter(text).matches { Self.values[$0] ?? .unknown } == expected)
    }

    @Test(arguments: [
        "", "color =", "= 1", "color = 'x", "(1=1", "1=1)", "color LIKE", "color IN ()", "a NOT b", "a IS 1", "a ; b",
        "[a",
    ]) func `what is no condition is refused`(text: String) {
        #expect(throws: SQLFilter.SyntaxError.self) { try SQLFilter(text) }
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

    @Test func `XML is read, and its traps are not`() throws {
        let node = try XMLNode.parse(
            Array("<?xml version='1.0'?><a:b x='1'><c>1 &lt; 2<![CDATA[<]]></c><d/></a:b>".utf8))
        #expect(node.name == "b" && node["c"]?.text == "1 < 2<" && node["d"]?.text == "")
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
