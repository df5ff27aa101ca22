/// Checks of storage bindings in function.json: paths, queue names, connections.
internal import ConfigurationFiles
internal import Invocations
internal import JSONText

extension FunctionFile {
    /// Properties whose `%Name%` are replaced by settings (the SDK's auto-resolve attributes).
    static let expandedKeys = ["path", "queueName", "topicName", "subscriptionName", "schedule"]

    /// The text properties of a binding, settings replaced.
    func texts(of value: JSONValue, _ reader: inout ConfigurationReader) -> [String: String] {
        var texts: [String: String] = [:]
        for member in value.members ?? [] {
            guard let text = member.value.string else { continue }
            let isExpanded = Self.expandedKeys.contains { $0.caseInsensitiveEquals(member.name) }
            texts[member.name.lowercased()] = isExpanded ? expand(text, at: member.value, &reader) : text
        }
        return texts
    }

    func checkStorage(_ binding: BindingMetadata, _ reader: inout ConfigurationReader) {
        let value = binding.properties
        switch binding.type.lowercased() {
        case "blobtrigger":
            do throws(BindingTemplateError) {
                _ = try BlobPathPattern(binding.text("path") ?? "")
            } catch {
                reader.report(
                    "AN7010", error.message, at: reader.value(value, "path") ?? value,
                    remedy: "\"path\": \"incoming/{name}\"")
            }
            let source = binding.text("source") ?? "LogsAndContainerScan"
            if !["logsandcontainerscan", "eventgrid"].contains(source.lowercased()) {
                reader.report(
                    "AN7010", "'\(source)' is not a source of blob triggers", at: reader.value(value, "source"),
                    remedy: "LogsAndContainerScan or EventGrid; both mean the folder's own events here")
            }
        case "blob": checkBlobPath(binding, &reader)
        case "queuetrigger", "queue": checkQueueName(binding, &reader)
        default: return
        }
        do throws(StorageConnection.Problem) {
            _ = try StorageConnection.resolve(binding.text("connection"), settings: settings)
        } catch {
            reader.report(
                "AN7011", error.message, at: reader.value(value, "connection") ?? value, remedy: error.remedy)
        }
        if binding.isTrigger, binding.direction != .in {
            reader.report(
                "AN2007", "'\(binding.direction.rawValue)' is not a direction of a trigger; it is in.",
                at: reader.value(value, "direction"))
        }
    }

    private func checkBlobPath(_ binding: BindingMetadata, _ reader: inout ConfigurationReader) {
        let path = binding.text("path") ?? ""
        let place = reader.value(binding.properties, "path") ?? binding.properties
        do throws(BindingTemplateError) {
            let template = try BindingTemplate(path)
            let halves = path.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2, !halves[0].isEmpty, !halves[1].isEmpty, !path.contains("\\") else {
                throw BindingTemplateError(
                    "Invalid blob path specified : '\(path)'. Blob identifiers must be in the format 'container/blob'.")
            }
            if !halves[0].contains("{"), !isContainerName(String(halves[0])) {
                throw BindingTemplateError("Invalid container name: \(halves[0])")
            }
            if template.isLiteral, !isBlobName(String(halves[1])) {
                throw BindingTemplateError("Invalid blob name: \(halves[1])")
            }
        } catch {
            reader.report("AN7010", error.message, at: place, remedy: "\"path\": \"scored/{name}\"")
        }
    }

    private func checkQueueName(_ binding: BindingMetadata, _ reader: inout ConfigurationReader) {
        let name = binding.text("queueName") ?? ""
        let place = reader.value(binding.properties, "queueName") ?? binding.properties
        do throws(BindingTemplateError) {
            let template = try BindingTemplate(name)
            guard !template.isLiteral || isStorageName(name.lowercased()), template.isLiteral || !binding.isTrigger
            else {
                throw BindingTemplateError("A queue name must be 3 to 63 letters, digits and single hyphens: '\(name)'")
            }
        } catch {
            reader.report("AN7010", error.message, at: place, remedy: "\"queueName\": \"orders\"")
        }
    }
}
