//! A document that compiles: methods, results, threats to validity and the artifact, to be taken apart for a paper.

use std::fmt::Write as _;

use super::escaped;
use crate::analysis::Report;
use crate::report::charts::{FLOATS, FOLDER, Figure};
use crate::report::{narrative, threats};

const PREAMBLE: &str = "\\documentclass[10pt]{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n\
                        \\usepackage[margin=12mm]{geometry}\n\\usepackage{booktabs}\n\\usepackage{graphicx}\n\
                        \\setlength{\\emergencystretch}{3em}\n";

/// Figures that stand in the text: those across models and metrics. The others are in the folder.
pub fn render(report: &Report, figures: &[Figure]) -> String {
    let mut text = format!(
        "% Compile: pdflatex paper.tex (twice, for references).\n{PREAMBLE}\\title{{{}}}\n\\author{{}}\n\\date{{}}\n\\begin{{document}}\n\\maketitle\n",
        escaped(&narrative::title(report))
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n", escaped(&report.description));
    section(&mut text, "Methods", narrative::methods(report).iter().map(String::as_str));
    section(&mut text, "Results", narrative::summary(report).iter().map(String::as_str));
    narrative::warnings(report).iter().for_each(|line| {
        let _ = writeln!(text, "{}\n", escaped(line));
    });
    text.push_str("\\input{report.tex}\n\\clearpage\n");
    let across = figures.iter().filter(|figure| figure.across);
    for (place, figure) in across.enumerate() {
        if place % FLOATS == FLOATS - 1 {
            text.push_str("\\clearpage\n");
        }
        text.push_str(&environment(figure, "0.5\\textwidth"));
    }
    let threats = threats::threats(report);
    section(&mut text, "Threats to validity", std::iter::empty());
    for (kind, sentences) in &threats {
        let _ = writeln!(text, "\\paragraph{{{}.}} {}\n", kind.title(), escaped(sentences));
    }
    let artifact = narrative::artifact();
    section(&mut text, "Artifact", artifact.iter().map(String::as_str));
    text.push_str("\\end{document}\n");
    text
}

fn section<'a>(text: &mut String, title: &str, lines: impl Iterator<Item = &'a str>) {
    let _ = writeln!(text, "\\section{{{title}}}");
    for line in lines {
        let _ = writeln!(text, "{}\n", escaped(line));
    }
}

/// A figure with caption and label.
pub fn environment(figure: &Figure, width: &str) -> String {
    format!(
        "\n\\begin{{figure}}[tbp]\n  \\centering\n  \\includegraphics[width={width}]{{{FOLDER}/{0}.pdf}}\n  \\caption{{{1}}}\n  \
         \\label{{fig:{0}}}\n\\end{{figure}}\n",
        figure.name,
        escaped(&figure.caption)
    )
}
