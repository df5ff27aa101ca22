import JSONText
import Testing

@Suite struct JSONParserTests {
    private func parse(_ text: String, comments: Bool = false) throws(JSONSyntaxError) -> JSONValue {
        try JSONParser.parse(Array(text.utf8), allowsComments: comments)
    }

    @Test func `values keep their kind and their place`() throws {
        let value = try parse(#"{"a": [1, -2.5e3, "x\u00e9\n", true, null]}"#)
        let elements = try #require(value["a"]?.elements)
        #expect(elements[0].integer == 1)
        #expect(elements[1].double == -2500)
        #expect(elements[2].string == "x\u{e9}\n")
        #expect(elements[3].bool == true)
        #expect(elements[4].isNull)
        #expect(elements[0].offset == 7)
        #expect(value.members?[0].nameOffset == 1)
    }

    @Test func `a surrogate pair is one character`() throws {
        #expect(try parse(#""\ud83d\ude00""#).string == "\u{1F600}")
    }

    @Test func `comments and a byte order mark are accepted where allowed`() throws {
        let text = "\u{FEFF}// first\n{ /* in\nside */ \"a\": 1 } // last"
        #expect(try parse(text, comments: true)["a"]?.integer == 1)
        #expect(throws: JSONSyntaxError.self) { try parse("{} // no") }
    }

    @Test func `a comma behind the last element is accepted where allowed, and only one`() throws {
        let value = try JSONParser.parse(Array(#"{"a":[1,2,],"b":{"c":1,},}"#.utf8), allowsTrailingCommas: true)
        #expect(value["a"]?.elements?.count == 2 && value["b"]?["c"]?.integer == 1)
        for text in ["[,]", "{,}", "[1,,]", #"{"a":1,,}"#] {
            #expect(throws: JSONSyntaxError.self) {
                try JSONParser.parse(Array(text.utf8), allowsTrailingCommas: true)
            }
        }
    }

    @Test(arguments: [
        ("", 0), ("{", 1), ("{\"a\" 1}", 5), ("{\"a\":1,}", 7), ("[1 2]", 3), ("NaN", 0), ("01", 0), ("1.", 2),
        ("\"a", 0),
        ("\"\\x\"", 2), ("\"\\ud800\"", 7), ("{} x", 3), ("[1,]", 3), ("-", 1), ("\"a\nb\"", 2), ("'a'", 0), ("tru", 0),
        ("{a:1}", 1), ("/* no end", 0),
    ])
    func `what is not JSON is refused at its place`(text: String, offset: Int) {
        let error = #expect(throws: JSONSyntaxError.self) { try parse(text, comments: true) }
        #expect(error?.offset == offset)
    }

    @Test func `invalid UTF-8 inside a string is refused`() {
        #expect(throws: JSONSyntaxError.self) { try JSONParser.parse([0x22, 0xFF, 0x22]) }
    }

    @Test func `nesting ends at the limit`() throws {
        let limit = JSONParser.depthLimit
        _ = try parse(String(repeating: "[", count: limit) + "1" + String(repeating: "]", count: limit))
        #expect(throws: JSONSyntaxError.self) {
            try parse(String(repeating: "[", count: limit + 1) + "1" + String(repeating: "]", count: limit + 1))
        }
        #expect(throws: JSONSyntaxError.self) { try parse(String(repeating: "[", count: 1_000_000)) }
    }

    @Test(arguments: [
        (#"{"b":1,"a":[1.0,2.50]}"#, #" { "a" : [ 1.00 , 2.5 ] , "b":1 } "#, true),
        (#"{"a":1e2}"#, #"{"a":100.0}"#, true), (#"{"a":1}"#, #"{"a":1.0}"#, true),
        (#"{"a":-10e-1}"#, #"{"a":-1}"#, true),
        (#"{"a":0.5}"#, #"{"a":5e-1}"#, true), (#"{"a":-0.0}"#, #"{"a":0}"#, true), (#"{"a":1}"#, #"{"a":1.5}"#, false),
        (#"{"a":1}"#, #"{"a":"1"}"#, false), (#"{"a":1}"#, #"{"a":true}"#, false),
        (#"{"a":"\u0041"}"#, #"{"a":"A"}"#, true),
        (#"[1,2]"#, #"[2,1]"#, false), (#"{"a":-0}"#, #"{"a":0}"#, true), (#"{"a":1,"a":2}"#, #"{"a":2}"#, true),
        ("9007199254740993", "9007199254740992", false),
    ])
    func `equal values have equal canonical bytes`(left: String, right: String, equal: Bool) throws {
        #expect((try parse(left).canonicalBytes == parse(right).canonicalBytes) == equal)
    }

    @Test func `what is written is read back`() throws {
        let bytes = jsonObject { writer in
            writer.member("text", "quote \" slash \\ line \n tab \t bell \u{7} del \u{7F} é")
            writer.member("count", 42)
            writer.name("nan")
            writer.number(.nan)
            writer.name("list")
            writer.beginArray()
            writer.bool(true)
            writer.null()
            writer.endArray()
        }
        let value = try JSONParser.parse(bytes)
        #expect(value["text"]?.string == "quote \" slash \\ line \n tab \t bell \u{7} del \u{7F} é")
        #expect(value["count"]?.integer == 42)
        #expect(value["nan"]?.isNull == true)
        #expect(value["list"]?.elements?.count == 2)
        var again = JSONWriter()
        again.value(value)
        #expect(again.bytes == bytes)
    }
}
