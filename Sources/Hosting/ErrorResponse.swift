/// The host's own errors as JSON responses.
internal import HTTPMessages
internal import JSONText

/// `{"error": {"code", "message", "try"}}`.
func errorResponse(_ status: Int, code: String, _ message: String, remedy: String? = nil) -> HTTPResponse {
    .json(
        status,
        jsonObject { writer in
            writer.name("error")
            writer.beginObject()
            writer.member("code", code)
            writer.member("message", message)
            if let remedy { writer.member("try", remedy) }
            writer.endObject()
        })
}
