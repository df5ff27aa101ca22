import FunctionApps
import Testing

@Suite struct RouteTemplateTests {
    private func match(_ template: String, _ path: String) throws -> [String: String?]? {
        let segments = path.split(separator: "/").map(String.init)
        return try RouteTemplate(template).match(segments).map { Dictionary($0.map { ($0.name, $0.value) }) { $1 } }
    }

    @Test(arguments: [
        ("api/Score", "API/score", true), ("api/score", "api/score/x", false), ("api/{id}", "api/7", true),
        ("api/{id}", "api", false), ("api/{id?}", "api", true), ("{*rest}", "", true), ("{*rest}", "a/b/c", true),
        ("a/{*rest}", "b", false), ("p/{id:int}", "p/12", true), ("p/{id:int}", "p/x", false),
        ("p/{id:int}", "p/99999999999", false), ("p/{id:long}", "p/99999999999", true), ("p/{b:bool}", "p/True", true),
        ("p/{b:bool}", "p/1", false), ("p/{a:alpha}", "p/abC", true), ("p/{a:alpha}", "p/a1", false),
        ("p/{d:datetime}", "p/2026-02-28T10:00:00Z", true), ("p/{d:datetime}", "p/2026-13-01", false),
        ("p/{d:decimal}", "p/-1.5", true), ("p/{d:decimal}", "p/1e5", false), ("p/{d:double}", "p/1e5", true),
        ("p/{d:float}", "p/nan", false), ("p/{g:guid}", "p/0f8fad5b-d9cb-469f-a165-70867728950e", true),
        ("p/{g:guid}", "p/0f8fad5b", false), ("p/{s:minlength(3)}", "p/ab", false),
        ("p/{s:minlength(3)}", "p/abc", true),
        ("p/{s:maxlength(3)}", "p/abcd", false), ("p/{s:length(2)}", "p/ab", true),
        ("p/{s:length(2,3)}", "p/abcd", false),
        ("p/{n:min(5)}", "p/5", true), ("p/{n:min(5)}", "p/4", false), ("p/{n:max(5)}", "p/6", false),
        ("p/{n:range(1,3)}", "p/3", true), ("p/{n:range(1,3)}", "p/4", false), ("p/{n:int:min(2)}", "p/1", false),
        ("p/{s:regex(^\\d{{3}}$)}", "p/123", true), ("p/{s:regex(^\\d{{3}}$)}", "p/1234", false),
        ("p/{s:regex(a)}", "p/xAx", true), ("p/{f:file}", "p/a.txt", true), ("p/{f:file}", "p/a", false),
        ("p/{f:nonfile}", "p/a", true), ("p/{r:required}", "p/a", true), ("p/{c:alpha?}/{id:guid?}", "p", true),
        ("p/{c:alpha?}", "p/1", false), ("a{{b}}c", "a{b}c", true), ("x/", "x", true),
    ])
    func `templates match what ASP.NET Core's match`(template: String, path: String, matches: Bool) throws {
        #expect(try (match(template, path) != nil) == matches)
    }

    @Test func `values are captured, defaulted or absent`() throws {
        #expect(try match("p/{a}/{b?}", "p/X") == ["a": "X", "b": nil])
        #expect(try match("p/{a=7}", "p") == ["a": "7"])
        #expect(try match("p/{*rest}", "p/a/b") == ["rest": "a/b"])
        #expect(try match("{a}-{b}", "x-y-z") == ["a": "x-y", "b": "z"])
        #expect(try match("{name}.{ext?}", "f.tar.gz") == ["name": "f.tar", "ext": "gz"])
        #expect(try match("{name}.{ext?}", "readme") == ["name": "readme", "ext": nil])
        #expect(try match("v{n:int}-{x}", "V12-q") == ["n": "12", "x": "q"])
        #expect(try match("v{n:int}-{x}", "vx-q") == nil)
    }

    @Test(arguments: [
        "a b", "a//b", "/a", "a/{", "a/}", "a/{}", "{a}{b}", "{a:nope}", "{a:min(x)}", "{a:length(3,1)}", "{*a}/b",
        "{a}/{a}", "x{*a}", "{a?}-{b}", "a?b", "{a:regex([)}", "{a:int", "{a!}", "{{a}",
    ])
    func `broken templates are refused`(template: String) {
        #expect(throws: RouteTemplateError.self) { try RouteTemplate(template) }
    }

    @Test func `a route may have as many segments as the limit`() throws {
        let segments = { (count: Int) in (0..<count).map { "s\($0)" }.joined(separator: "/") }
        _ = try RouteTemplate(segments(RouteTemplate.segmentLimit))
        #expect(throws: RouteTemplateError.self) { try RouteTemplate(segments(RouteTemplate.segmentLimit + 1)) }
    }
}
