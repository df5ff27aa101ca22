/// `andiron validate`: says what is wrong with an app, without running it.
import ArgumentParser
import Bundles
import ConfigurationFiles
import Diagnostics
import FunctionApps
import Glibc
import Hosting
import Invocations
import JSONText
import RedisClients

struct Validate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check host.json, function.json, local.settings.json and the bundles.",
        discussion: """
            Examples:
              andiron validate
              andiron validate my-app --format github
            """)

    @OptionGroup var location: AppLocation

    @Option(help: "text, json or github.")
    var format: String = "text"

    func validate() throws {
        guard ["text", "json", "github"].contains(format) else {
            throw ValidationError("--format is '\(format)'; it is text, json or github.")
        }
    }

    func run() throws {
        let (folder, environment) = (location.folder(), processEnvironment())
        let app = FunctionHost.appOnDisk(folder, environment)
        var problems: [any HostError] = app.problems

        for function in app.functions {
            guard case .bundle(let folder, let script) = function.entryPoint else { continue }
            do throws(BundleError) {
                let bundle = try Bundle.load(folder: folder, script: script)
                problems += bundle.warnings
            } catch {
                problems.append(error)
            }
        }
        if let text = app.settings["RedisConnectionString"] {
            do throws(RedisError) {
                _ = try RedisAddress(text)
            } catch {
                problems.append(error)
            }
        } else {
            for function in app.functions where function.features != nil {
                problems.append(
                    ConfigurationProblem(
                        "AN6010", "'features' needs a Redis, and the app has no RedisConnectionString",
                        remedy: "set RedisConnectionString in local.settings.json",
                        place: SourcePlace(file: "\(function.name)/function.json"), isWarning: true))
            }
        }
        let isWarning = { (problem: any HostError) in (problem as? ConfigurationProblem)?.isWarning ?? false }
        for problem in problems { report(problem, isWarning: isWarning(problem)) }
        let errors = problems.count { !isWarning($0) }
        if format == "text" {
            output(
                Array("\(app.functions.count) functions, \(errors) errors, \(problems.count - errors) warnings\n".utf8))
        }
        if errors > 0 { Glibc.exit(ExitStatus.badConfiguration.rawValue) }
    }

    private func report(_ problem: any HostError, isWarning: Bool) {
        switch format {
        case "json":
            output(
                jsonObject { writer in
                    writer.member("severity", isWarning ? "warning" : "error")
                    writer.member("code", problem.code)
                    writer.member("message", problem.message)
                    if let remedy = problem.remedy { writer.member("try", remedy) }
                    if let place = problem.place {
                        writer.member("file", place.file)
                        writer.member("line", place.line)
                        writer.member("column", place.column)
                    }
                } + [0x0A])
        case "github":
            let place = problem.place.map { "file=\($0.file),line=\(max($0.line, 1)),col=\($0.column)" } ?? ""
            output(Array("::\(isWarning ? "warning" : "error") \(place)::\(problem.code) \(problem.message)\n".utf8))
        default:
            let text = (problem as? ConfigurationProblem)?.text ?? problem.description
            complain(text)
        }
    }
}
