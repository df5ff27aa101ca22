/// Values as a table for people and as tab-separated text for scripts, as Azure's command line prints them.
public import JSONText

/// Columns of what is simple; nested values are left out.
public func resourceTable(_ value: JSONValue) -> [UInt8] {
    let rows = value.elements ?? [value]
    var columns: [String] = []
    for row in rows {
        for member in row.members ?? [] where isSimple(member.value) && !columns.contains(member.name) {
            columns.append(member.name)
        }
    }
    guard !columns.isEmpty else {
        return Array(
            (["Result", "------"] + rows.filter { !$0.isNull }.map(plain)).map { $0 + "\n" }.joined().utf8)
    }
    let cells = rows.map { row in columns.map { plain(row[$0] ?? .null) } }
    let titles = columns.map { $0.prefix(1).uppercased() + $0.dropFirst() }
    let widths = columns.indices.map { index in
        max(titles[index].count, cells.map { $0[index].count }.max() ?? 0)
    }
    func line(_ texts: [String]) -> String {
        var text = ""
        for (index, cell) in texts.enumerated() {
            text += cell
            if index + 1 < texts.count { text += String(repeating: " ", count: widths[index] - cell.count + 2) }
        }
        while text.last == " " { text.removeLast() }
        return text + "\n"
    }
    return Array(
        ([line(titles), line(widths.map { String(repeating: "-", count: $0) })] + cells.map(line)).joined().utf8)
}

/// One line a row, tabs between values, no quotes.
public func resourceTSV(_ value: JSONValue) -> [UInt8] {
    if value.isNull { return [] }
    let rows = value.elements ?? [value]
    let lines = rows.map { row -> String in
        if let members = row.members { return members.map { plain($0.value) }.joined(separator: "\t") }
        if let elements = row.elements { return elements.map(plain).joined(separator: "\t") }
        return plain(row)
    }
    return Array(lines.map { $0 + "\n" }.joined().utf8)
}

private func isSimple(_ value: JSONValue) -> Bool { value.members == nil && value.elements == nil && !value.isNull }

private func plain(_ value: JSONValue) -> String {
    switch value.content {
    case .null: ""
    case .bool(let truth): truth ? "True" : "False"
    case .number(let digits): digits
    case .string(let text): text
    case .array(let elements): "\(elements.count)"
    case .object: ""
    }
}

extension JSONValue {
    /// The value without members whose names begin with `_`.
    public var withoutHidden: JSONValue {
        if let elements { return .list(elements.map(\.withoutHidden)) }
        guard let members else { return self }
        return JSONValue(
            .object(
                members.filter { !$0.name.hasPrefix("_") }.map {
                    Member(name: $0.name, nameOffset: 0, value: $0.value.withoutHidden)
                }))
    }
}
