/// «Did you mean …?»

/// The candidate nearest to what was written, if one is near enough to be meant.
///
/// Near means at most a third of the letters (at least one) inserted, dropped, replaced or swapped,
/// without regard to case.
public func nearest(to written: String, among candidates: some Sequence<String>) -> String? {
    let limit = max(1, written.count / 3)
    return
        candidates
        .map { (name: $0, distance: editDistance(Array(written.lowercased().utf8), Array($0.lowercased().utf8))) }
        .filter { $0.distance <= limit }
        .min { ($0.distance, $0.name) < ($1.distance, $1.name) }?
        .name
}

/// Damerau-Levenshtein distance, adjacent swaps counting once.
func editDistance(_ left: [UInt8], _ right: [UInt8]) -> Int {
    var rows = [[Int]](repeating: [Int](repeating: 0, count: right.count + 1), count: left.count + 1)
    for i in 0...left.count { rows[i][0] = i }
    for j in 0...right.count { rows[0][j] = j }
    guard !left.isEmpty, !right.isEmpty else { return max(left.count, right.count) }
    for i in 1...left.count {
        for j in 1...right.count {
            let cost = left[i - 1] == right[j - 1] ? 0 : 1
            var best = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + cost)
            if i > 1, j > 1, left[i - 1] == right[j - 2], left[i - 2] == right[j - 1] {
                best = min(best, rows[i - 2][j - 2] + 1)
            }
            rows[i][j] = best
        }
    }
    return rows[left.count][right.count]
}
