import Invocations
import JSONText
import Testing

@Suite struct BindingTemplateTests {
    static let data: BindingData = {
        var data = BindingData()
        data.set("name", "7.json")
        data.set("Number", .integer(42))
        data.set("Properties", .object([("ETag", .text("0x8D")), ("Length", .integer(9))]))
        data.set(
            properties: (try? JSONParser.parse(
                Array(#"{"order":{"id":"a7","n":3},"list":[1],"none":null,"yes":true}"#.utf8))) ?? JSONValue(.null))
        return data
    }()

    @Test(arguments: [
        ("out/{name}", "out/7.json"), ("{{literal}}-{NAME}", "{literal}-7.json"), ("{number:D5}", "00042"),
        ("{properties.etag}/{Properties.Length}", "0x8D/9"), ("{order.id}-{order.n}", "a7-3"), ("{yes}", "True"),
        ("{sys.methodname}", "Score"), ("plain", "plain"), ("{order}", ""),
    ])
    func `expressions resolve`(template: String, expected: String) throws {
        #expect(try BindingTemplate(template).resolve(Self.data, functionName: "Score") == expected)
    }

    @Test(arguments: [
        ("a/{}", "Invalid template 'a/{}'. The parameter name at position 3 is empty."),
        ("a/{name", "Invalid template 'a/{name'. Missing closing bracket at position 3."),
        ("a/name}", "Invalid template 'a/name}'. Missing opening bracket at position 7."),
        ("{a-b}", "Invalid template '{a-b}'. The parameter name 'a-b' is invalid."),
        ("{a{b}}", "Invalid template '{a{b}}'. Missing closing bracket at position 1."),
    ])
    func `mistakes have the SDK's words`(template: String, message: String) {
        #expect(throws: BindingTemplateError(message)) { try BindingTemplate(template) }
    }

    @Test(arguments: ["{missing}", "{order.missing}", "{list}", "{none}"])
    func `what has no value is an error when it is resolved`(template: String) throws {
        let name = template.dropFirst().dropLast()
        #expect(throws: BindingTemplateError("No value for named parameter '\(name)'.")) {
            try BindingTemplate(template).resolve(Self.data, functionName: "Score")
        }
    }

    @Test func `random names have the formats of a GUID`() throws {
        let resolve = { (text: String) in try BindingTemplate(text).resolve(BindingData(), functionName: "F") }
        #expect(try resolve("{rand-guid}").count == 36)
        #expect(try resolve("{rand-guid:N}").allSatisfy { $0.isHexDigit && !$0.isUppercase })
        #expect(try resolve("{Rand-Guid:B}").first == "{")
        #expect(try resolve("{sys.randguid}") != resolve("{sys.randguid}"))
        #expect(try resolve("{DateTime:yyyyMMdd}").count == 8)
        #expect(try resolve("{DateTime}").contains("T"))
    }

    @Test(arguments: [
        ("yyyy-MM-ddTHH-mm-ssK", "2026-01-31T09-05-07Z"), ("yyyyMMdd", "20260131"), ("yy.M.d", "26.1.31"),
        ("ddd, dd MMM yyyy", "Sat, 31 Jan 2026"), ("o", "2026-01-31T09:05:07.5000000Z"), ("h:mm tt", "9:05 AM"),
        ("'at' HH", "at 09"), ("HH.fff", "09.500"), ("R", "Sat, 31 Jan 2026 09:05:07 GMT"),
    ])
    func `date formats are those of NET`(format: String, expected: String) throws {
        #expect(try DateFormat(format).text(of: 1_769_850_307.5) == expected)
    }

    @Test(arguments: ["q", "'open"])
    func `what is no date format is refused`(format: String) {
        #expect(throws: BindingTemplateError.self) { try BindingTemplate("{DateTime:\(format)}") }
    }
}
