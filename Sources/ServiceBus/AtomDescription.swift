/// What all of Azure's administration documents share: Atom entries and feeds, and how their fields are read.

/// Entries, feeds and fields.
enum AtomDescription {
    static let connect = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
    static let counts = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
    private static let schema = "http://www.w3.org/2001/XMLSchema"

    /// What is wrong with a description.
    struct Refusal: Error, Equatable {
        let reason: String
    }

    // MARK: Reading

    /// The name in an address: clients write full ones. Nil when it is empty.
    static func entity(_ text: String) -> String? {
        let name = EntityPath(text).entity
        return name.isEmpty ? nil : name
    }

    static func duration(
        _ node: XMLNode, _ name: String, _ range: ClosedRange<Int64>
    ) throws(Refusal) -> Int64? {
        guard let text = node[name]?.text, !text.isEmpty else { return nil }
        guard let value = ISODuration.milliseconds(text) else { throw Refusal(reason: "\(name) is '\(text)'") }
        let bounded = min(value, QueueSettings.forever)
        guard range.contains(bounded) else { throw Refusal(reason: "\(name) is '\(text)', out of range") }
        return bounded
    }

    static func flag(_ node: XMLNode, _ name: String) throws(Refusal) -> Bool? {
        guard let text = node[name]?.text, !text.isEmpty else { return nil }
        guard let value = Bool(text.lowercased()) else { throw Refusal(reason: "\(name) is '\(text)'") }
        return value
    }

    static func number(_ node: XMLNode, _ name: String, _ range: ClosedRange<Int>) throws(Refusal) -> Int? {
        guard let text = node[name]?.text, !text.isEmpty else { return nil }
        guard let value = Int(text), range.contains(value) else { throw Refusal(reason: "\(name) is '\(text)'") }
        return value
    }

    static func status(_ node: XMLNode) throws(Refusal) -> QueueSettings.Status? {
        guard let text = node["Status"]?.text, !text.isEmpty else { return nil }
        guard let status = QueueSettings.Status(rawValue: text) else { throw Refusal(reason: "Status is '\(text)'") }
        return status
    }

    // MARK: Writing

    /// Elements in the order given, inside one of the service's own.
    static func element(_ name: String, _ fields: [(name: String, content: String)]) -> String {
        let body = fields.map { "<\($0.name)>\($0.content)</\($0.name)>" }.joined()
        return "<\(name) xmlns=\"\(connect)\" xmlns:i=\"\(schema)-instance\">\(body)</\(name)>"
    }

    /// A value with its type, of a rule's properties and parameters.
    static func keyValue(_ key: String, _ value: FilterValue) -> String {
        let (type, text): (String, String) =
            switch value {
            case .text(let text): ("string", xmlEscape(text))
            case .integer(let number): (Int64(Int32.min)...Int64(Int32.max) ~= number ? "int" : "long", "\(number)")
            case .number(let number): ("double", "\(number)")
            case .truth(let truth): ("boolean", "\(truth)")
            case .time(let time): ("dateTime", HTTPDate.iso(time))
            case .span(let span): ("duration", ISODuration.text(span))
            case .uuid, .other, .unknown: ("string", "")
            }
        return "<KeyValueOfstringanyType><Key>\(xmlEscape(key))</Key>"
            + "<Value xmlns:d6p1=\"\(schema)\" i:type=\"d6p1:\(type)\">\(text)</Value></KeyValueOfstringanyType>"
    }

    /// An Atom entry.
    ///
    /// - Parameters:
    ///   - name: the path below `base`, escaped.
    ///   - title: what clients take for its name, escaped; nil is the path.
    static func entry(
        name: String, title: String? = nil, base: String, published: Int64, updated: Int64, content: String
    ) -> String {
        "<entry xmlns=\"http://www.w3.org/2005/Atom\"><id>\(base)/\(name)</id>"
            + "<title type=\"text\">\(title ?? name)</title>"
            + "<published>\(HTTPDate.iso(published))</published><updated>\(HTTPDate.iso(updated))</updated>"
            + "<author><name>andiron</name></author><link rel=\"self\" href=\"\(base)/\(name)\"/>"
            + "<content type=\"application/xml\">\(content)</content></entry>"
    }

    /// An Atom feed.
    static func feed(_ entries: [String], title: String, base: String, next: String?, now: Int64) -> String {
        var links = "<link rel=\"self\" href=\"\(xmlEscape(base))\"/>"
        if let next { links += "<link rel=\"next\" href=\"\(xmlEscape(next))\"/>" }
        return "<feed xmlns=\"http://www.w3.org/2005/Atom\"><title type=\"text\">\(xmlEscape(title))</title>"
            + "<id>\(xmlEscape(base))</id><updated>\(HTTPDate.iso(now))</updated>\(links)\(entries.joined())</feed>"
    }
}
