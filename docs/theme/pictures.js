// Draws the code blocks in the language mermaid. A page without one does not load mermaid.
(() => {
    const sources = document.querySelectorAll('code.language-mermaid');
    if (sources.length === 0) return;
    for (const source of sources) {
        const picture = document.createElement('pre');
        picture.className = 'mermaid';
        picture.textContent = source.textContent;
        source.closest('pre').replaceWith(picture);
    }
    const script = document.createElement('script');
    script.src = path_to_root + 'mermaid.min.js';
    script.onload = () => {
        const dark = ['ayu', 'coal', 'navy'].some((name) => document.documentElement.classList.contains(name));
        mermaid.initialize({
            startOnLoad: false,
            theme: dark ? 'dark' : 'neutral',
            flowchart: { wrappingWidth: 360, nodeSpacing: 30, rankSpacing: 30 },
        });
        mermaid.run();
    };
    document.head.append(script);
})();
