import EventLoops
import FunctionApps
import HTTPMessages
import HostTestSupport
import Testing
@testable import Triggers

private func head(_ method: String, _ path: String) -> RequestHead? {
    let bytes = Array("\(method) \(path) HTTP/1.1\r\nHost: h\r\n\r\n".utf8)
    guard case .complete(let head, _) = RequestParser.parse(bytes.span) else { return nil }
    return head
}

@Suite struct RouteTableTests {
    private func table(_ routes: [(String, [String]?)]) throws -> RouteTable {
        RouteTable(
            try routes.enumerated().map { Route(function: $0, template: try RouteTemplate($1.0), methods: $1.1) })
    }

    private func find(_ table: RouteTable, _ method: String, _ path: String) throws -> Int? {
        table.match(try #require(head(method, path)))?.function
    }

    @Test func `the first route in order wins, literal or not`() throws {
        let table = try table([("api/{x}", nil), ("api/score", nil), ("other/score", nil), ("other/{x}", nil)])
        #expect(try find(table, "GET", "/api/score") == 0)
        #expect(try find(table, "GET", "/other/score") == 2)
        #expect(try find(table, "GET", "/other/more") == 3)
        #expect(try find(table, "GET", "/third") == nil)
    }

    @Test func `a wrong method goes on to the next route`() throws {
        let table = try table([("api/x", ["GET"]), ("api/x", ["POST"]), ("api/{y}", ["DELETE"])])
        #expect(try find(table, "GET", "/api/x") == 0)
        #expect(try find(table, "POST", "/API/X/") == 1)
        #expect(try find(table, "DELETE", "/api/x") == 2)
        #expect(try find(table, "PUT", "/api/x") == nil)
    }

    @Test func `escapes are decoded, and odd paths match nothing`() throws {
        let table = try table([("api/a b".replacing(" ", with: "-"), nil), ("api/{x}/end", nil)])
        #expect(try find(table, "GET", "/api/a%2Db") == 0)
        #expect(try find(table, "GET", "/api/%C3%A9/end") == 1)
        for path in ["/api//end", "/api/%zz/end", "/api/../end", "/api/%00/end", "/api/%2e%2e/end"] {
            #expect(try find(table, "GET", path) == nil, "\(path)")
        }
    }

    @Test func `a thousand functions are found as fast as one`() throws {
        let many = try table((0..<1000).map { ("api/f\($0)", nil) } + [("items/{id}", nil)])
        #expect(try find(many, "GET", "/api/f999") == 999)
        #expect(try find(many, "GET", "/items/5") == 1000)
    }
}

@Suite struct RequestThrottleTests {
    @Test func `places are given in order and the queue has an end`() async throws {
        try await onTheLoop {
            let throttle = RequestThrottle(outstanding: 3, concurrent: 1)
            #expect(throttle.admit())
            await throttle.turn()
            let order = Order()
            let done = Gate()
            for name in ["second", "third"] {
                #expect(throttle.admit())
                loopTask {
                    await throttle.turn()
                    order.names.append(name)
                    throttle.leave()
                    if order.names.count == 2 { done.open() }
                }
            }
            // The next turn of the loop: both wait by then.
            await sleep(for: .zero)
            #expect(throttle.admit() == false)
            throttle.leave()
            await done.wait()
            #expect(order.names == ["second", "third"])
            #expect(throttle.admit())
        }
    }
}

@EventLoop private final class Order { var names: [String] = [] }
