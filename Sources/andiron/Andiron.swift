import EventLoops
import HTTPServers
import HTTPMessages
@EventLoop final class R: HTTPResponder {
  func respond(to r: HTTPRequest) async -> HTTPResponse { .json(200, Array("{\"status\":\"ok\"}".utf8)) }
  func refusal(_ e: HTTPParseError) -> HTTPResponse { .text(e.status, e.reason) }
}
@main struct Main {
  static func main() throws {
    EventLoop.executor.bind()
    let l = try EventLoop.assumeIsolated { try HTTPListener(address: "127.0.0.1", port: 9999, limits: HTTPLimits(), responder: R()) }
    EventLoop.executor.run()
    _ = l
  }
}
